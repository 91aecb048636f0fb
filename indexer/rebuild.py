"""The index in memory, made from the catalog or brought up to date from it.

In: rows of `vectors`. Out: `LiveIndex`: a `VectorIndex`, the kind of each vector, and the last change it includes. An
index that replayed changes equals one built anew: both read the same float16 rows. Next: `generations.py`, its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from indexer.catalog import Model, last_change
from indexer.schema import CAPTION, HIDDEN, IMAGE, TEXT, vectors
from indexer.types import Float32Array, Modality
from indexer.vectors.base import Int64Array, VectorIndex
from indexer.vectors.choose import Device, new_index

ROWS_AT_ONCE = 8192

SEARCHED: Final[dict[Modality | None, tuple[int, ...]]] = {
    None: (IMAGE, TEXT),  # a caption is represented by its photo
    "image": (IMAGE,),
    "text": (TEXT, CAPTION),
}


class LiveIndex:
    """`ids` int64 `[n]` rising, `kinds` uint8 `[n]`; `index` holds the same ids."""

    def __init__(
        self, model: Model, index: VectorIndex, ids: Int64Array, kinds: NDArray[np.uint8], change: int
    ) -> None:
        self.model = model
        self.index = index
        self.ids = ids
        self.kinds = kinds
        self.change = change

    def search(
        self, query: Float32Array, k: int, within: Modality | None, hidden: Int64Array
    ) -> tuple[Int64Array, Float32Array]:
        """One query `[d]` -> ids `[k']` and cosines `[k']`, `k' <= k`, among `within` and without `hidden`."""
        passes = np.isin(self.kinds, SEARCHED[within]) & ~np.isin(self.ids, hidden)
        allowed = None if passes.all() else self.ids[passes]
        ids, scores = self.index.search(query[None, :], k, allowed)
        found = ids[0] >= 0
        return ids[0][found], scores[0][found]

    def replay(self, connection: Connection) -> int:
        """Apply every change since; the number of rows read."""
        newest = last_change(connection)
        if newest == self.change:
            return 0
        query = select(vectors.c.id, vectors.c.kind, vectors.c.mu).where(
            vectors.c.model_id == self.model.id, vectors.c.change > self.change
        )
        count = 0
        for rows in connection.execute(query).partitions(ROWS_AT_ONCE):
            self._apply(rows)
            count += len(rows)
        self.change = newest
        return count

    def _apply(self, rows: Sequence[Any]) -> None:
        ids = np.array([row.id for row in rows], np.int64)
        kinds = np.array([row.kind for row in rows], np.uint8)
        shown = kinds != HIDDEN
        self.index.remove(ids[~shown])
        if shown.any():
            means = _matrix((row.mu for row in rows if row.kind != HIDDEN), self.model.dim)
            self.index.add(ids[shown], means)
        kept = ~np.isin(self.ids, ids)
        merged = np.concatenate([self.ids[kept], ids[shown]])
        order = np.argsort(merged)
        self.ids, self.kinds = merged[order], np.concatenate([self.kinds[kept], kinds[shown]])[order]


def from_catalog(connection: Connection, model: Model, device: Device) -> LiveIndex:
    """The index of `model`'s vectors, out of the catalog alone."""
    index = new_index(model.dim, device)
    query = select(vectors.c.id, vectors.c.kind, vectors.c.mu).where(
        vectors.c.model_id == model.id, vectors.c.kind != HIDDEN
    )
    all_ids: list[Int64Array] = [np.empty(0, np.int64)]
    all_kinds: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)]
    for rows in connection.execute(query.order_by(vectors.c.id)).partitions(ROWS_AT_ONCE):
        all_ids.append(np.array([row.id for row in rows], np.int64))
        all_kinds.append(np.array([row.kind for row in rows], np.uint8))
        index.add(all_ids[-1], _matrix((row.mu for row in rows), model.dim))
    return LiveIndex(model, index, np.concatenate(all_ids), np.concatenate(all_kinds), last_change(connection))


def _matrix(blobs: Iterable[bytes], dim: int) -> Float32Array:
    return np.frombuffer(b"".join(blobs), np.float16).reshape(-1, dim).astype(np.float32)  # [n, d]
