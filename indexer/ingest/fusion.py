"""Photos that have captions, as one vector: the product of the photo's expert and its captions'.

In: photos whose fusion is missing. Out: a FUSED vector for each. Every caption is an expert of its own, its
mean as long as the photo's: `mmsearch eval --fusion` measures this against averages, and against captions pooled into
one expert, which find less. Next: `rebuild.py`, where vectors become an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, and_, exists, func, or_, select, update

from indexer.base.failpoints import reach
from indexer.base.types import Encoder, Posterior
from indexer.catalog.database import Catalog, Model, next_change
from indexer.catalog.schema import FUSED, HIDDEN, IMAGE, LIVE, OWN, assets, captions, vectors
from indexer.ingest.rows import Blobs, from_blobs, to_blobs

BATCH = 256


def caption_expert(photo: Posterior, captions: Posterior) -> Posterior:
    """The captions of one photo as one expert: their product with the prior N(0, I), over means as long as the photo's.

    Multiplied with the photo this is the product of all experts (Wu & Goodman 2018, equation 4): the product is
    associative. Training contrasts directions alone, which leaves the lengths of the means to chance; taken as they
    come, the shorter modality has the smaller say.

    Args:
        photo: `[1, d]`, whose length the means take; where it is zero they keep their own.
        captions: `[c, d]`, at least one.
    """
    precision = np.exp(-captions.logvar.astype(np.float64))  # [c, d]
    means = captions.mu.astype(np.float64)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)  # [c, 1]
    wanted = float(np.linalg.norm(photo.mu.astype(np.float64)))
    means *= np.where(lengths > 0, wanted, 1.0) / np.where(lengths > 0, lengths, 1.0) if wanted else 1.0
    product = 1 + (precision - 1).sum(axis=0, keepdims=True)  # [1, d]
    mu = (precision * means).sum(axis=0, keepdims=True) / product
    return Posterior(mu.astype(np.float32), -np.log(product).astype(np.float32))


def fuse_photos(catalog: Catalog, model: Model, encoder: Encoder) -> int:
    """Compute every missing fusion; how many. Commits each batch; what a crash leaves out is found missing again."""
    with catalog.begin() as connection:
        pending = list(connection.scalars(_unfused(model)))
    for start in range(0, len(pending), BATCH):
        with catalog.begin() as connection:
            photos = connection.execute(_own(model, pending[start : start + BATCH])).all()
            experts = _experts(connection, model, [row.asset_id for row in photos])
        images = from_blobs([Blobs(row.mu, row.logvar) for row in photos], model.dim)  # [n, d]
        said = [
            caption_expert(images[i : i + 1], from_blobs(experts[row.asset_id], model.dim))
            for i, row in enumerate(photos)
        ]
        texts = Posterior(np.concatenate([one.mu for one in said]), np.concatenate([one.logvar for one in said]))
        fused = to_blobs(encoder.fuse([images, texts]))
        with catalog.begin() as connection:
            _store(connection, model, {row.asset_id: blobs for row, blobs in zip(photos, fused, strict=True)})
            reach("fusion.writing")
        reach("fusion.committed")
    return len(pending)


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
    # a sum in an order of its own: the same bits whatever was indexed first; what is said twice counts once
    return {photo_id: sorted(set(blobs), key=lambda one: (one.mu, one.logvar)) for photo_id, blobs in experts.items()}


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
