"""When in a video: the vectors of its keyframes.

In: blobs of encoded files. Out: rows of `frames`; those that a damaged catalog has. A video is found by the mixture of
its keyframes, one vector like any other; which of them the query meant is asked of the few that were found. Next:
`vectors.py`, which writes these rows with the vectors; `hits.py`, which asks for those of the hits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

import numpy as np
from sqlalchemy import Connection, and_, delete, select

from indexer.base.types import Model
from indexer.catalog.schema import OWN, frames, vectors
from indexer.catalog.scopes import chunked

ROUNDING: Final = 2**-9  # of a mean and of what it is made of, each rounded to float16 (2**-11), and as much to spare
SMALLEST: Final = 2**-23  # steps of float16 next to zero
Moments = tuple[tuple[int, bytes], ...]  # (milliseconds, mu as float16 [d]) of each keyframe


def write(connection: Connection, model_id: int, moments: Mapping[int, Moments]) -> None:
    """Replace the keyframes of these assets; most have none."""
    for chunk in chunked(moments):
        mine = (frames.c.asset_id.in_(chunk), frames.c.model_id == model_id)
        connection.execute(delete(frames).where(*mine))
    fresh = [
        {"asset_id": asset_id, "model_id": model_id, "time_ms": time_ms, "mu": mu}
        for asset_id, some in moments.items()
        for time_ms, mu in some
    ]
    if fresh:
        connection.execute(frames.insert(), fresh)


def drop_others(connection: Connection, model_id: int, asset_ids: Sequence[int]) -> None:
    """Forget the keyframes that models but this one have of these assets, whose content is new."""
    connection.execute(delete(frames).where(frames.c.asset_id.in_(asset_ids), frames.c.model_id != model_id))


def of_asset(connection: Connection, model_id: int, asset_id: int) -> Moments:
    """The keyframes of one asset, for its copy."""
    query = select(frames.c.time_ms, frames.c.mu).where(frames.c.asset_id == asset_id, frames.c.model_id == model_id)
    return tuple((row.time_ms, bytes(row.mu)) for row in connection.execute(query.order_by(frames.c.time_ms)))


def unfit(connection: Connection, model: Model) -> tuple[int, set[int]]:
    """How many videos there are, and the ids of own vectors that are not the mean of their keyframes, to rounding."""
    columns = (frames.c.asset_id, frames.c.mu.label("frame"), vectors.c.id, vectors.c.mu)
    own = (vectors.c.asset_id == frames.c.asset_id, vectors.c.model_id == frames.c.model_id, vectors.c.role == OWN)
    query = select(*columns).join(vectors, and_(*own, vectors.c.caption_id.is_(None), vectors.c.mu.is_not(None)))
    in_order = connection.execute(query.where(frames.c.model_id == model.id).order_by(frames.c.asset_id))
    count, found = 0, set()
    for _, rows in groupby(in_order, key=lambda row: row.asset_id):
        video = list(rows)
        count += 1
        if not _is_mean(video[0].mu, [row.frame for row in video], model.dim):
            found.add(int(video[0].id))
    return count, found


def _is_mean(whole: bytes, parts: list[bytes], dim: int) -> bool:
    if {len(blob) for blob in (whole, *parts)} != {2 * dim}:
        return False
    mean = np.frombuffer(whole, np.float16).astype(np.float32)  # [d]
    mus = np.stack([np.frombuffer(blob, np.float16) for blob in parts]).astype(np.float32)  # [f, d]
    room = ROUNDING * np.maximum(np.abs(mus).max(axis=0), np.abs(mean)) + SMALLEST
    with np.errstate(invalid="ignore", over="ignore"):  # whatever a damaged number is
        return bool((np.abs(mus.mean(axis=0) - mean) <= room).all())  # NaN is not <=
