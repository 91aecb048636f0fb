"""The texts that speak of photos: table `captions`. They are never deleted: one that is gone is not live.

In: captions as the disk has them. Out: rows; those that wait for a vector; photos with their words. Next: `vectors.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, and_, func, select, update

from indexer.base.types import Model
from indexer.catalog.roots import Root
from indexer.catalog.schema import LIVE, assets, captions, roots, vectors
from indexer.catalog.scopes import chunked


class Key(NamedTuple):
    """What makes two captions the same: everything but the words.

    `text_asset_id` is a text file beside the photo; else `source` is the file below the root that has the words.
    """

    asset_id: int  # the photo
    text_asset_id: int | None = None
    source: str | None = None
    text_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """A caption on record, and where its photo is."""

    id: int
    key: Key
    is_live: bool
    photo_path: str


@dataclass(frozen=True, slots=True)
class PendingText:
    """A live caption without a vector; `vector_id` is the row of one that a repair has emptied."""

    id: int
    photo_id: int
    text: str
    text_hash: bytes
    vector_id: int | None


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo and the texts that speak of it; `content_hash` is equal for equal bytes."""

    path: Path
    content_hash: bytes
    captions: tuple[str, ...]


def recorded(connection: Connection, root: Root) -> Iterator[CaptionRow]:
    """Every caption of the photos of a root."""
    key = (captions.c.asset_id, captions.c.text_asset_id, captions.c.source, captions.c.text_hash)
    query = select(captions.c.id, captions.c.live, assets.c.rel_path, *key)
    query = query.join(assets, assets.c.id == captions.c.asset_id).where(assets.c.root_id == root.id)
    for number, is_live, rel_path, *key_values in connection.execute(query).all():
        yield CaptionRow(number, Key(*key_values), is_live, rel_path)


def set_live(connection: Connection, ids: Collection[int], live: bool) -> None:
    """Captions came back, or are gone."""
    for chunk in chunked(ids):
        connection.execute(update(captions).where(captions.c.id.in_(chunk)).values(live=live))


def insert(connection: Connection, fresh: Iterable[tuple[Key, str | None]]) -> None:
    """New captions with their words; a text file keeps its own."""
    rows = [key._asdict() | {"text": text, "live": True} for key, text in fresh]
    if rows:
        connection.execute(captions.insert(), rows)


def pending(connection: Connection, model: Model) -> list[PendingText]:
    """The live captions that are no file and have no vector of `model`."""
    mine = and_(vectors.c.caption_id == captions.c.id, vectors.c.model_id == model.id)
    columns = (captions.c.id, captions.c.asset_id, captions.c.text, captions.c.text_hash, vectors.c.id)
    query = select(*columns).join(vectors, mine, isouter=True).where(captions.c.live, captions.c.source.is_not(None))
    query = query.where(captions.c.text.is_not(None), captions.c.text_hash.is_not(None))  # a crafted row
    # Texts of one length share a batch without padding, which is most of a transformer's work on short texts.
    in_order = query.where(vectors.c.mu.is_(None)).order_by(func.length(captions.c.text), captions.c.id)
    return [PendingText(*row) for row in connection.execute(in_order)]


def count_live(connection: Connection, root_ids: Collection[int]) -> int:
    """The live captions of the live photos of some roots."""
    query = select(func.count()).select_from(captions.join(assets, assets.c.id == captions.c.asset_id))
    query = query.where(captions.c.live, assets.c.state == LIVE, assets.c.root_id.in_(list(root_ids)))
    return int(connection.execute(query).scalar_one())


def captioned_photos(connection: Connection) -> list[CaptionedPhoto]:
    """The live photos with at least one live caption, by path; their captions in alphabetical order, each once.

    The words of a text file are its excerpt, about as much as a text encoder reads: no file is opened.
    """
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
