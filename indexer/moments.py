"""When in a video: the vectors of its keyframes.

In: blobs of encoded files. Out: rows of `frames`. A video is found by the mixture of
its keyframes, one vector like any other; which of them the query meant is asked of the few that were found. Next:
`assets.py`, which writes these rows with the vectors; `search.py`, which asks for the nearest to a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, select

from indexer.schema import frames

CHUNK = 500
Moments = tuple[tuple[int, bytes], ...]  # (milliseconds, mu as float16 [d]) of each keyframe


def write(connection: Connection, model_id: int, moments: Mapping[int, Moments]) -> None:
    """Replace the keyframes of these assets; most have none."""
    ids = list(moments)
    for start in range(0, len(ids), CHUNK):
        mine = (frames.c.asset_id.in_(ids[start : start + CHUNK]), frames.c.model_id == model_id)
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
