"""Photos that have captions, as one vector: the product of the photo's expert and its captions'.

In: photos whose fusion is missing. Out: a FUSED vector for each. Several captions are one modality, described several
times, so they are pooled into one expert first; multiplied one by one, five captions would outvote the photo five to
one. Next: `rebuild.py`, where vectors become an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, and_, exists, func, or_, select, update

from indexer.assets import Blobs, from_blobs, to_blobs
from indexer.catalog import Catalog, Model, next_change
from indexer.schema import FUSED, HIDDEN, IMAGE, LIVE, OWN, assets, captions, vectors
from indexer.types import Encoder, Posterior

BATCH = 256


def pool(experts: Posterior) -> Posterior:
    """Logarithmic opinion pool with equal weights: `q ~ (prod_i q_i)^(1/n)`, posteriors `[n, d]` -> `[1, d]`.

    For Gaussians the precision is the mean of the precisions and the mean is weighted by them (Genest and Zidek 1986,
    eq. 3.10, with the Gaussian density), so that pooling one expert, or n times the same, changes nothing.
    """
    precision = np.exp(-experts.logvar.astype(np.float64))  # [n, d]
    pooled = precision.mean(axis=0, keepdims=True)  # [1, d]
    mu = (precision * experts.mu).mean(axis=0, keepdims=True) / pooled
    return Posterior(mu.astype(np.float32), -np.log(pooled).astype(np.float32))


def fuse_photos(catalog: Catalog, model: Model, encoder: Encoder) -> None:
    """Compute every missing fusion. Commits each batch; what a crash leaves out, the next run finds missing again."""
    with catalog.begin() as connection:
        pending = list(connection.scalars(_unfused(model)))
    for start in range(0, len(pending), BATCH):
        with catalog.begin() as connection:
            photos = connection.execute(_own(model, pending[start : start + BATCH])).all()
            experts = _experts(connection, model, [row.asset_id for row in photos])
        images = from_blobs([Blobs(row.mu, row.logvar) for row in photos], model.dim)  # [n, d]
        pooled = [pool(from_blobs(experts[row.asset_id], model.dim)) for row in photos]
        texts = Posterior(np.concatenate([one.mu for one in pooled]), np.concatenate([one.logvar for one in pooled]))
        fused = to_blobs(encoder.fuse([images, texts]))
        with catalog.begin() as connection:
            _store(connection, model, {row.asset_id: blobs for row, blobs in zip(photos, fused, strict=True)})


def _unfused(model: Model) -> Select[Any]:
    """Ids of live photos that have a vector, a caption with one, and no fusion."""
    fused = vectors.alias()
    done = exists().where(
        fused.c.asset_id == vectors.c.asset_id,
        fused.c.model_id == model.id,
        fused.c.role == FUSED,
        fused.c.mu.is_not(None),
    )
    return (
        select(vectors.c.asset_id)
        .join(assets, assets.c.id == vectors.c.asset_id)
        .where(vectors.c.model_id == model.id, vectors.c.role == OWN, vectors.c.caption_id.is_(None))
        .where(vectors.c.mu.is_not(None), assets.c.state == LIVE, assets.c.modality == "image", ~done)
        .where(
            or_(*(exists(of.where(captions.c.asset_id == assets.c.id).correlate(assets)) for of in _speaking(model)))
        )
        .order_by(vectors.c.asset_id)
    )


def _own(model: Model, photo_ids: Sequence[int]) -> Select[Any]:
    """The own vectors of photos."""
    query = select(vectors.c.asset_id, vectors.c.mu, vectors.c.logvar)
    query = query.where(vectors.c.asset_id.in_(photo_ids), vectors.c.model_id == model.id, vectors.c.role == OWN)
    return query.where(func.coalesce(vectors.c.caption_id, 0) == 0).order_by(vectors.c.asset_id)


def _speaking(model: Model) -> tuple[Select[Any], Select[Any]]:
    """Live captions with their vectors: those of a CSV's rows, and those of text files.

    Two queries, since one with OR in its join makes SQLite read every vector for every photo.
    """
    text = vectors.alias()
    of_row = text.c.caption_id == captions.c.id
    of_file = and_(text.c.asset_id == captions.c.text_asset_id, text.c.role == OWN)
    of_file = and_(of_file, func.coalesce(text.c.caption_id, 0) == 0)  # IS NULL would make SQLite start from this end
    usable = and_(captions.c.live, text.c.mu.is_not(None), text.c.model_id == model.id)
    query = select(captions.c.asset_id, text.c.mu, text.c.logvar)
    return query.join(text, of_row).where(usable), query.join(text, of_file).where(usable)


def _experts(connection: Connection, model: Model, photo_ids: Sequence[int]) -> dict[int, list[Blobs]]:
    experts: dict[int, list[Blobs]] = {photo_id: [] for photo_id in photo_ids}
    for speaking in _speaking(model):
        for row in connection.execute(speaking.where(captions.c.asset_id.in_(photo_ids))):
            experts[row.asset_id].append(Blobs(row.mu, row.logvar))
    for blobs in experts.values():
        blobs.sort(key=lambda one: one.mu)  # a sum in an order of its own: the same bits whatever was indexed first
    return experts


def _store(connection: Connection, model: Model, fused: dict[int, Blobs]) -> None:
    change = next_change(connection)
    of_these = and_(vectors.c.model_id == model.id, vectors.c.role == FUSED, vectors.c.asset_id.in_(list(fused)))
    present = set(connection.scalars(select(vectors.c.asset_id).where(of_these)))
    base = {"model_id": model.id, "role": FUSED, "kind": IMAGE, "change": change}
    fresh = [
        base | {"asset_id": asset_id, "mu": blobs.mu, "logvar": blobs.logvar}
        for asset_id, blobs in fused.items()
        if asset_id not in present
    ]
    if fresh:
        connection.execute(vectors.insert(), fresh)
    for asset_id in present:
        values = {"mu": fused[asset_id].mu, "logvar": fused[asset_id].logvar, "kind": IMAGE, "change": change}
        mine = and_(vectors.c.model_id == model.id, vectors.c.role == FUSED, vectors.c.asset_id == asset_id)
        connection.execute(update(vectors).where(mine).values(values))
    own = and_(vectors.c.model_id == model.id, vectors.c.role == OWN, vectors.c.caption_id.is_(None))
    hide = update(vectors).where(own, vectors.c.asset_id.in_(list(fused)), vectors.c.kind != HIDDEN)
    connection.execute(hide.values(kind=HIDDEN, change=change))
