"""Closed-form heads from the vectors a library already holds: no picture is read again to fit them.

    mmsearch index ./photos --model clip-ViT-B-32        isotropic heads, searchable at once
    fit_library_heads(library, Path("./clip-heads"))     this file
    mmsearch rebuild --model ./clip-heads                every vector through the new heads

In: a library written with a backbone as it is. Out: a model folder. Next: `closed_form.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sqlalchemy import select

from indexer.assets import Blobs, from_blobs
from indexer.catalog import Catalog
from indexer.schema import LIVE, OWN, assets, vectors
from indexer.store import Store
from indexer.types import Float32Array
from mmsearch.errors import ModelError, ModelMismatch
from mmsearch.models.backbone import load_backbone, save_linear_heads
from mmsearch.models.closed_form import fit_heads


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
    """
    with Store.open(library) as store:
        name, fingerprint = store.model_name(), store.model_fingerprint()
        if name is None or fingerprint is None:
            raise ModelError(f"{library} holds no vectors; run 'mmsearch index FOLDER --model clip-ViT-B-32' first")
        if name == "default" or (Path(name) / "model.json").exists():
            raise ModelError(
                f"{library} was written with {name!r}, which has heads; expected a backbone as it is; "
                "run 'mmsearch rebuild --model clip-ViT-B-32' first"
            )
        model = load_backbone(name, device)
        if model.fingerprint != fingerprint:
            raise ModelMismatch(
                f"{library} was written with {name!r} {fingerprint[:12]}, found {model.fingerprint[:12]}; "
                f"run 'mmsearch rebuild --model {name}' first"
            )
        images, texts = _features(store._catalog, model.dim)
    return save_linear_heads(folder, model.backbone, fit_heads(images, texts, latent_dim))


def _features(catalog: Catalog, dim: int) -> tuple[Float32Array, Float32Array]:
    """The library's own vectors of live files and captions, made unit again: images `[n, f]`, texts `[m, f]`."""
    model = catalog.model()
    assert model is not None  # asked for above
    query = (
        select(vectors.c.mu, vectors.c.logvar, vectors.c.caption_id, assets.c.modality)
        .join(assets, assets.c.id == vectors.c.asset_id)
        .where(vectors.c.model_id == model.id, vectors.c.role == OWN, vectors.c.mu.is_not(None))
        .where(assets.c.state == LIVE)
        .order_by(vectors.c.id)
    )
    images: list[Blobs] = []
    texts: list[Blobs] = []
    with catalog.begin() as connection:
        for row in connection.execute(query):
            is_image = row.caption_id is None and row.modality == "image"
            (images if is_image else texts).append(Blobs(row.mu, row.logvar))
    return _unit(from_blobs(images, dim).mu), _unit(from_blobs(texts, dim).mu)


def _unit(rows: Float32Array) -> Float32Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)
