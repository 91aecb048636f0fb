"""A library, as tuning sees it: its captioned photos, the folder of its model, a place for the tuned one.

In: an open store. Out: what `tune.py` found. Nothing of the library changes here. Next: `tune.py`.
"""

from __future__ import annotations

from pathlib import Path

from indexer.store import Store
from mmsearch.errors import LibraryError, ModelError, ModelMismatch
from mmsearch.inference.load_model import PRETRAINED
from mmsearch.tuning.folder import checked_source
from mmsearch.tuning.pairs import digest, pairs_of
from mmsearch.tuning.tune import TuneReport, check_enough, tune

MODELS_FOLDER = "models"


def tune_library(store: Store, folder: str | Path | None, *, dry_run: bool, device: str) -> TuneReport:
    """Tune the model of a library; see `Library.tune`.

    Raises:
        DataError: too few photos with captions.
        LibraryError: a folder is offline: its files could not be encoded with the tuned model.
        ModelError: the library is empty or its model has no heads of its own.
        ModelMismatch: the model's folder holds other weights than wrote the library.
    """
    photos = store.captioned_photos()
    check_enough(len(pairs_of(photos)))
    for root in store.status().roots:
        if not root.online:
            raise LibraryError(f"{root.path} {root.reason}; connect it, then run 'mmsearch tune' again")
    wrote = store.model()
    if wrote is None:
        raise ModelError(f"{store.path} holds no vectors; run 'mmsearch index FOLDER' first")
    name, fingerprint = wrote.name, wrote.fingerprint
    source = PRETRAINED / "default" if name == "default" else Path(name)
    found = str(checked_source(source)["fingerprint"])
    if found != fingerprint:
        raise ModelMismatch(
            f"{store.path} was written with {name!r} {fingerprint[:12]}, found {found[:12]}; "
            f"run 'mmsearch rebuild --model {name}' first"
        )
    if dry_run:
        return tune(photos, source, None, device=device)
    target = _default_folder(store, fingerprint, digest(pairs_of(photos))) if folder is None else Path(folder)
    return tune(photos, source, target.expanduser().absolute(), device=device)


def _default_folder(store: Store, fingerprint: str, captions_digest: str) -> Path:
    """A name that the same weights and captions lead to again, so that a run that was cut off finds its model."""
    return store.path / MODELS_FOLDER / f"tuned-{fingerprint[:6]}-{captions_digest[:6]}"
