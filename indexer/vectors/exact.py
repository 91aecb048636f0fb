"""Exact search in numpy: the truth the other backends are tested against, what serves small libraries, and every
library where no FAISS is installed.

In: `Rows`. Out: exact neighbours: float32 products choose the candidates, exact cosines rank them. The unit vectors of
a small library are kept; a large one is read and normalised block by block. Next: `faiss_index.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from indexer.base.matmul import products
from indexer.base.types import Float32Array
from indexer.vectors.protocol import ROUNDING, Candidates, chosen_columns, falling, joined, normalised, ranked
from indexer.vectors.rows import ROWS_AT_ONCE, BoolArray, Float16Array, Int64Array, Rows, pieces

KEPT_BYTES: Final = 1 << 26  # of unit vectors in float32


@dataclass(frozen=True, eq=False)
class Mask:
    """Which positions may be found, bool `[n]`, and how many they are."""

    passes: BoolArray
    count: int

    @property
    def share(self) -> float:
        """Of all positions; 1 where nothing is held back."""
        return self.count / max(1, len(self.passes))


class ExactIndex:
    """Everything is looked at."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._units: Float32Array = np.empty((0, rows.dim), np.float32)  # of the first positions
        self._mask_of: tuple[Int64Array | None, Mask] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, ids: Int64Array, vectors: Float32Array | Float16Array) -> None:
        """Add or replace, see `VectorIndex`."""
        self.rows.add(ids, vectors)
        self._mask_of = None

    def remove(self, ids: Int64Array) -> int:
        """Take ids out, see `VectorIndex`."""
        self._mask_of = None
        return self.rows.remove(ids)

    def search(self, queries: Float32Array, k: int, allowed: Int64Array | None = None) -> Candidates:
        """The `k` nearest, see `VectorIndex`."""
        queries, mask = normalised(queries, self.rows.dim), self.mask(allowed)
        return ranked(queries, k, mask.count, self.rows, partial(self.scan, mask), doubt=ROUNDING)

    def mask(self, allowed: Int64Array | None) -> Mask:
        """Which positions may be found. The last one is kept: most searches have the same filter."""
        known = self._mask_of
        if known is not None and known[0] is allowed and (allowed is None or not allowed.flags.writeable):
            return known[1]
        if allowed is None:
            passes = self.rows.alive.copy()
        else:
            passes = np.zeros(len(self.rows.ids), np.bool_)
            passes[self.rows.positions(allowed)] = True
        mask = Mask(passes, int(np.count_nonzero(passes)))
        self._mask_of = (allowed, mask)
        return mask

    def scan(self, mask: Mask, queries: Float32Array, count: int, start: int = 0) -> Candidates:
        """The `count` best of what `mask` lets pass, from position `start` on; fewer where there are not as many."""
        best: Candidates = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        for places, units in self._blocks(mask, start):
            found = products(queries, units)  # [m, n]
            if best[1].shape[1] == count:  # only what beats the worst so far
                better = np.flatnonzero((found > best[1].min(axis=1, keepdims=True)).any(axis=0))
                places, found = places[better], found[:, better]
            best = joined(best, (np.broadcast_to(places, found.shape), found))
            if best[1].shape[1] > count:
                best = chosen_columns(best, np.argpartition(-best[1], count - 1, axis=1)[:, :count])
        return falling(best)

    def _blocks(self, mask: Mask, start: int) -> Iterator[tuple[Int64Array, Float32Array]]:
        """Positions `[n]` that may be found and their unit vectors `[n, d]`."""
        places = np.flatnonzero(mask.passes[start:]) + start
        keep = 4 * self.rows.dim * len(mask.passes) <= KEPT_BYTES
        if keep and len(self._units) < len(mask.passes):
            added = self.rows.slice(len(self._units), len(mask.passes))
            self._units = np.concatenate([self._units, normalised(added, self.rows.dim)])
        for first, stop in pieces(len(places), ROWS_AT_ONCE):
            some = places[first:stop]
            whole = len(some) == some[-1] - some[0] + 1
            if keep:
                yield some, self._units[some[0] : some[-1] + 1] if whole else self._units[some]
            else:
                half = self.rows.slice(int(some[0]), int(some[-1]) + 1) if whole else self.rows.take(some)
                yield some, normalised(half, self.rows.dim)
