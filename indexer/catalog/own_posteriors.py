"""What heads are fitted on: photos with what is said of them, and the vectors of everything by modality.

In: an open catalog. Out: `CaptionedPhoto`s, posteriors. Nothing here writes, and no file is opened: the words of a
`photo.txt` are its excerpt, about as much as a text encoder reads. Next: nothing; this is a leaf of `store.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, func, select

from indexer.base.types import Posterior
from indexer.catalog.database import Model
from indexer.catalog.schema import LIVE, OWN, assets, captions, roots, vectors
from indexer.ingest.rows import Blobs, from_blobs


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo and the texts that speak of it; `content_hash` is equal for equal bytes."""

    path: Path
    content_hash: bytes
    captions: tuple[str, ...]


def captioned_photos(connection: Connection) -> list[CaptionedPhoto]:
    """The live photos with at least one live caption, by path; their captions in alphabetical order, each once."""
    beside = assets.alias()
    words = func.coalesce(captions.c.text, beside.c.excerpt)
    query = (
        select(roots.c.path, assets.c.rel_path, assets.c.content_hash, words.label("words"))
        .join(assets, assets.c.id == captions.c.asset_id)
        .join(roots, roots.c.id == assets.c.root_id)
        .join(beside, beside.c.id == captions.c.text_asset_id, isouter=True)
        .where(captions.c.live, assets.c.state == LIVE, assets.c.modality == "image")
        .where(assets.c.content_hash.is_not(None), words.is_not(None))
    )
    spoken: dict[tuple[Path, bytes], set[str]] = {}
    for row in connection.execute(query):
        text = " ".join(row.words.split())
        if text:
            spoken.setdefault((Path(row.path) / row.rel_path, bytes(row.content_hash)), set()).add(text)
    found = [CaptionedPhoto(path, digest, tuple(sorted(texts))) for (path, digest), texts in spoken.items()]
    return sorted(found, key=lambda photo: photo.path)


def own_posteriors(connection: Connection, model: Model) -> tuple[Posterior, Posterior]:
    """The unfused posteriors of live files and captions, oldest first: images `[n, d]`, texts `[m, d]`."""
    query = (
        select(vectors.c.mu, vectors.c.logvar, vectors.c.caption_id, assets.c.modality)
        .join(assets, assets.c.id == vectors.c.asset_id)
        .where(vectors.c.model_id == model.id, vectors.c.role == OWN, vectors.c.mu.is_not(None))
        .where(assets.c.state == LIVE)
        .order_by(vectors.c.id)
    )
    images: list[Blobs] = []
    texts: list[Blobs] = []
    for row in connection.execute(query):
        is_image = row.caption_id is None and row.modality == "image"
        (images if is_image else texts).append(Blobs(row.mu, row.logvar))
    return from_blobs(images, model.dim), from_blobs(texts, model.dim)
