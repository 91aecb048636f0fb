"""The vectors of photos with their captions: the rows of `vectors` with role FUSED.

In: photos and captions that have vectors. Out: the photos whose fusion is missing, the posteriors it is made of, rows.
Next: `visibility.py`, by which a photo is found by this vector and no longer by its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, exists, func, or_, select, update

from indexer.base.types import Model
from indexer.catalog.library import next_change
from indexer.catalog.schema import FUSED, LIVE, OWN, assets, captions, vectors
from indexer.catalog.scopes import chunked, own_of
from indexer.catalog.vectors import Blobs, checked


def drop(connection: Connection, photo_ids: Collection[int]) -> None:
    """Forget the fusion of these photos, for every model: an expert changed. The next run computes it again."""
    if not photo_ids:
        return
    change = next_change(connection)
    for chunk in chunked(photo_ids):
        fused = and_(vectors.c.asset_id.in_(chunk), vectors.c.role == FUSED)
        connection.execute(update(vectors).where(fused).values(mu=None, logvar=None, change=change))


def captioned_by(connection: Connection, text_ids: Collection[int]) -> set[int]:
    """The photos that these text files are captions of."""
    photos: set[int] = set()
    for chunk in chunked(text_ids):
        of_these = and_(captions.c.text_asset_id.in_(chunk), captions.c.live)
        photos.update(connection.scalars(select(captions.c.asset_id).where(of_these)))
    return photos


def unfused(connection: Connection, model: Model) -> list[int]:
    """Ids of live photos that have a vector, a caption with one, and no fusion."""
    fused = vectors.alias()
    same = and_(fused.c.asset_id == vectors.c.asset_id, fused.c.model_id == model.id)
    done = exists().where(same, fused.c.role == FUSED, fused.c.mu.is_not(None))
    said = (of.where(captions.c.asset_id == assets.c.id).correlate(assets) for of in _caption_vectors(model))
    query = (
        select(vectors.c.asset_id)
        .join(assets, assets.c.id == vectors.c.asset_id)
        .where(own_of(model), assets.c.state == LIVE, assets.c.modality == "image", ~done)
        .where(or_(*(exists(one) for one in said)))
        .order_by(vectors.c.asset_id)
    )
    return list(connection.scalars(query))


def photos(connection: Connection, model: Model, photo_ids: Sequence[int]) -> dict[int, Blobs]:
    """The own vectors of photos, by rising id. Raises: RowCorrupt."""
    columns = (vectors.c.id, vectors.c.asset_id, vectors.c.mu, vectors.c.logvar)
    query = select(*columns).where(vectors.c.asset_id.in_(photo_ids))
    # IS NULL in place of coalesce would make SQLite start from the index on captions
    is_own = and_(vectors.c.role == OWN, func.coalesce(vectors.c.caption_id, 0) == 0, vectors.c.model_id == model.id)
    rows = checked(connection.execute(query.where(is_own).order_by(vectors.c.asset_id)).all(), model.dim)
    return {row.asset_id: Blobs(row.mu, row.logvar) for row in rows}


def experts(connection: Connection, model: Model, photo_ids: Sequence[int]) -> dict[int, list[Blobs]]:
    """What is said of each photo; what is said twice counts once. Raises: RowCorrupt."""
    said: dict[int, set[Blobs]] = {photo_id: set() for photo_id in photo_ids}
    for query in _caption_vectors(model):
        for row in checked(connection.execute(query.where(captions.c.asset_id.in_(photo_ids))).all(), model.dim):
            said[row.asset_id].add(Blobs(row.mu, row.logvar))
    # a sum in an order of its own: the same bits whatever was indexed first
    return {photo_id: sorted(blobs, key=lambda one: (one.mu, one.logvar)) for photo_id, blobs in said.items()}


def store(connection: Connection, model: Model, blobs: Mapping[int, Blobs]) -> None:
    """The fusions of these photos."""
    change = next_change(connection)
    mine = and_(vectors.c.model_id == model.id, vectors.c.role == FUSED)
    present = set(connection.scalars(select(vectors.c.asset_id).where(mine, vectors.c.asset_id.in_(list(blobs)))))
    base = {"model_id": model.id, "role": FUSED, "change": change}
    values = {key: base | {"mu": one.mu, "logvar": one.logvar} for key, one in blobs.items()}
    fresh = [one | {"asset_id": key} for key, one in values.items() if key not in present]
    if fresh:
        connection.execute(vectors.insert(), fresh)
    again = [one | {"photo": key} for key, one in values.items() if key in present]
    if again:
        connection.execute(update(vectors).where(mine, vectors.c.asset_id == bindparam("photo")), again)


def _caption_vectors(model: Model) -> tuple[Select[Any], Select[Any]]:
    """Live captions with their vectors: those of a CSV's rows, and those of text files.

    Two queries, since one with OR in its join makes SQLite read every vector for every photo.
    """
    text = vectors.alias()
    of_row = text.c.caption_id == captions.c.id
    of_file = and_(text.c.asset_id == captions.c.text_asset_id, text.c.role == OWN)
    of_file = and_(of_file, func.coalesce(text.c.caption_id, 0) == 0)  # IS NULL would make SQLite start from this end
    usable = and_(captions.c.live, text.c.mu.is_not(None), text.c.model_id == model.id)
    query = select(text.c.id, captions.c.asset_id, text.c.mu, text.c.logvar)
    return query.join(text, of_row).where(usable), query.join(text, of_file).where(usable)
