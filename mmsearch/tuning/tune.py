"""`mmsearch tune`: the heads of a library's model, fitted on the library's own captions.

    captioned photos -> features, once -> learn from most of them, judge by the rest -> a model folder, or nothing

The trunks stay as they are, so that this takes minutes. A model is written only where the captions that were not
learned from find their photos, and the photos their captions, better than before. In: an open store, of which nothing
changes, or its `CaptionedPhoto`s and the folder of the model that wrote it. Out: a `TuneReport` and a folder that
`mmsearch rebuild --model` takes. Next: `pairs.py` divides the photos, `features.py` reads them, `fit.py` moves the
heads, `folder.py` keeps them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from indexer.store import CaptionedPhoto, Store
from mmsearch.errors import DataError, LibraryError, ModelError, ModelMismatch
from mmsearch.evaluation.subject import rounded
from mmsearch.inference.known_models import fingerprint_of, name_of, remember_made
from mmsearch.inference.load_model import PRETRAINED, find_tried
from mmsearch.models.checkpoint import load_vae
from mmsearch.training.step import keep_freed_memory
from mmsearch.tuning import folder as tune_folder
from mmsearch.tuning.features import read_features
from mmsearch.tuning.fit import Settings, blend, choose_mix, fit, heads_of, judge, set_heads
from mmsearch.tuning.pairs import digest, held_out, pairs_of

log = logging.getLogger(__name__)

MODELS_FOLDER = "models"  # inside a library
FEWEST_PHOTOS = 50
FEWEST_HELD_OUT = 20
HELD_OUT_SHARE = 0.2
_TEMPERATURE = 0.05  # of a model whose description names none


@dataclass(frozen=True)
class TuneReport:
    """What `mmsearch tune` found and did.

    Attributes:
        photos: different photos with captions that could be read.
        captions: of them.
        held_out: photos that were judged by and not learned from.
        recall_before: mean of the six recalls (1, 5, 10, both ways) of the held-out photos among all, percent.
        recall_after: the same with the new heads.
        noise: one standard error of the difference, over the held-out photos.
        mix: how far the heads were moved from the old ones (0) to those fitted on the captions (1).
        accepted: whether the gain exceeds the noise; nothing is written or changed where it does not.
        model: the folder of the tuned model, or None.
        encoded: vectors computed anew for the library.
        seconds: wall time.
    """

    photos: int
    captions: int
    held_out: int
    recall_before: float
    recall_after: float
    noise: float
    mix: float
    accepted: bool
    model: Path | None = None
    encoded: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as `mmsearch tune --json` prints it."""
        facts: dict[str, Any] = rounded(asdict(self))
        return facts | {"model": None if self.model is None else str(self.model)}


def tune_library(store: Store, folder: str | Path | None, *, dry_run: bool, device: str) -> TuneReport:
    """Tune the model of a library; see `Library.tune`.

    Raises:
        DataError: too few photos with captions.
        LibraryError: a folder is offline: its files could not be encoded with the tuned model.
        ModelError: the library is empty or its model has no heads of its own.
        ModelMismatch: the model's folder holds other weights than wrote the library.
        ModelNotNamed: this user never named its model.
    """
    photos = store.captioned_photos()
    check_enough(len(pairs_of(photos)))
    for root in store.status().roots:
        if not root.online:
            raise LibraryError(f"{root.path} {root.reason}; connect it, then run 'mmsearch tune' again")
        if not root.yours:
            raise LibraryError(
                f"{root.path} is not read, since you never indexed it on this machine; "
                f"run 'mmsearch index {root.path}', then 'mmsearch tune' again"
            )
    wrote = store.model()
    if wrote is None:
        raise ModelError(f"{store.path} holds no vectors; run 'mmsearch index FOLDER' first")
    name, fingerprint = name_of(wrote), wrote.fingerprint
    source = PRETRAINED / "default" if name == "default" else Path(name)
    found = fingerprint_of(tune_folder.checked_source(source))
    if found != fingerprint:
        raise ModelMismatch(
            f"{store.path} was written with {name!r} {fingerprint[:12]}, found {found[:12]}; "
            f"run 'mmsearch rebuild --model {name}' first"
        )
    find_tried(name)
    if dry_run:
        return tune(photos, source, None, device=device)
    # the same weights and captions give the same name again, so that a run that was cut off finds its model
    default = store.path / MODELS_FOLDER / f"tuned-{fingerprint[:6]}-{digest(pairs_of(photos))[:6]}"
    target = default if folder is None else Path(folder)
    return tune(photos, source, target.expanduser().absolute(), device=device)


def tune(
    photos: Sequence[CaptionedPhoto],
    source: Path,
    target: Path | None,
    *,
    device: str = "cpu",
    settings: Settings | None = None,
) -> TuneReport:
    """Fit the heads of the model in `source` and write the model to `target`; None writes nothing.

    A `target` that this call wrote before, from the same photos, captions and weights, is taken as it is.

    Raises:
        DataError: too few photos with captions.
        ModelError: a model without heads of its own, or a `target` that holds something else.
        TrainingError: the loss is not a number.
    """
    started, settings = time.monotonic(), settings or Settings()
    pairs = pairs_of(photos)
    check_enough(len(pairs))
    described, captions = tune_folder.checked_source(source), digest(pairs)
    key = tune_folder.key_of(described, captions, settings)
    done = _done_before(source, described, target, captions, key)
    if done is not None:
        return replace(done, seconds=time.monotonic() - started)
    keep_freed_memory()
    vae, architecture = load_vae(source)
    vae = vae.to(device)
    features = read_features(source, vae, architecture, pairs, device)
    check_enough(len(features.pairs))
    held = held_out(features.pairs, HELD_OUT_SHARE, FEWEST_HELD_OUT)
    if held.sum() < FEWEST_HELD_OUT or (~held).sum() < FEWEST_PHOTOS - FEWEST_HELD_OUT:
        raise DataError(
            f"{len(held)} photos share their captions so that {held.sum()} can be held out, expected "
            f"{FEWEST_HELD_OUT} and {FEWEST_PHOTOS - FEWEST_HELD_OUT} to learn from; give photos captions of their own"
        )
    learned, temperature = features.only(np.flatnonzero(~held)), float(described.get("temperature") or _TEMPERATURE)
    old = heads_of(vae)
    mix = choose_mix(vae, learned, temperature, settings)
    new = tune_folder.as_stored(blend(old, fit(vae, learned, temperature, settings), mix), described) if mix else old
    before, after = judge(vae, features, held, old), judge(vae, features, held, new)
    noise = float((after - before).std(ddof=1) / np.sqrt(held.sum()))
    report = TuneReport(
        photos=len(features.pairs),
        captions=len(features.texts),
        held_out=int(held.sum()),
        recall_before=float(before.mean()),
        recall_after=float(after.mean()),
        noise=noise,
        mix=mix,
        accepted=bool((after - before).mean() > noise),
    )
    if report.accepted and target is not None:
        set_heads(vae, new)
        report = replace(report, model=target)
        noted = {"key": key, "captions_digest": captions, **report.to_dict()}
        tune_folder.write(target, vae.cpu(), architecture, source, described, noted)
        remember_made(target)
    return replace(report, seconds=time.monotonic() - started)


def check_enough(photos: int) -> None:
    """Raises DataError below `FEWEST_PHOTOS` photos with captions."""
    if photos < FEWEST_PHOTOS:
        raise DataError(
            f"{photos} different photos with captions can be read here, {FEWEST_PHOTOS} are needed; write photo.txt "
            "beside photo.jpg, or a captions.csv with the columns image and caption, and run 'mmsearch index FOLDER'"
        )


def _done_before(
    source: Path, described: Mapping[str, Any], target: Path | None, captions: str, key: str
) -> TuneReport | None:
    """The report of an earlier run: the one that made `source` from these very captions, or the one that wrote
    `target` from the same weights and captions. None where there is something to do.

    Raises:
        ModelError: `target` holds something else.
    """
    folder, noted = source, described.get("tuned") or {}
    if noted.get("captions_digest") != captions:
        noted = None if target is None else tune_folder.tuned_before(target)
        if target is None or noted is None:
            return None
        if noted.get("key") != key:
            raise ModelError(f"{target} was tuned from other captions or another model; name a new folder")
        folder = target
    log.info("%s was tuned on these captions before; it is taken as it is", folder)
    known = {f.name for f in fields(TuneReport)}
    return TuneReport(**{k: v for k, v in noted.items() if k in known} | {"model": folder})
