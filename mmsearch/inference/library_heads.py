"""Closed-form heads from the vectors a library already holds: no picture is read again to fit them.

    mmsearch index ./photos --model clip-ViT-B-32        isotropic heads, searchable at once
    fit_library_heads(library, Path("./clip-heads"))     this file
    mmsearch rebuild --model ./clip-heads                every vector through the new heads

In: a library written with a backbone as it is. Out: a model folder. Next: `closed_form.py`.
"""

from __future__ import annotations

from pathlib import Path

from indexer.store import Store
from indexer.vectors.protocol import normalised
from mmsearch.errors import ModelError, ModelMismatch
from mmsearch.inference.backbone_model import load_backbone, save_linear_heads
from mmsearch.inference.closed_form import fit_heads
from mmsearch.inference.known_models import name_of
from mmsearch.inference.load_model import find_tried


def fit_library_heads(library: Path, folder: Path, *, latent_dim: int | None = None, device: str = "cpu") -> Path:
    """Fit heads on a library's images and texts and write them as a model folder; returns it.

    Args:
        library: its folder.
        folder: where the heads go; what `mmsearch rebuild --model` is given next.
        latent_dim: d; see `fit_heads`.

    Raises:
        LibraryNotFound: no library there.
        ModelError: the library is empty, its model is no plain backbone, or it holds too few images or texts.
        ModelMismatch: its vectors come from other weights than the backbone has now.
        ModelNotNamed: this user never named its model.
    """
    with Store.open(library) as store:
        wrote = store.model()
        if wrote is None:
            raise ModelError(f"{library} holds no vectors; run 'mmsearch index FOLDER --model clip-ViT-B-32' first")
        name, fingerprint = name_of(wrote), wrote.fingerprint
        if name == "default" or (Path(name) / "model.json").exists():
            raise ModelError(
                f"{library} was written with {name!r}, which has heads; expected a backbone as it is; "
                "run 'mmsearch rebuild --model clip-ViT-B-32' first"
            )
        find_tried(name)
        model = load_backbone(name, device)
        if model.fingerprint != fingerprint:
            raise ModelMismatch(
                f"{library} was written with {name!r} {fingerprint[:12]}, found {model.fingerprint[:12]}; "
                f"run 'mmsearch rebuild --model {name}' first"
            )
        # the backbone's vectors as it gave them: of length one, which float16 did not quite keep
        images, texts = (normalised(own.mu, model.dim) for own in store.own_posteriors())
    return save_linear_heads(folder, model.backbone, fit_heads(images, texts, latent_dim))
