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
from indexer.vectors.rows import ROWS_AT_ONCE, BoolArray, Int64Array, Rows, pieces

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
        self._units: dict[int, Float32Array] = {}  # unit vectors from a position on: from the first, and of a tail
        self._last_mask: tuple[Int64Array | None, int, Mask] | None = None

    def search(self, queries: Float32Array, k: int, allowed: Int64Array | None = None) -> Candidates:
        """The `k` nearest, see `VectorIndex`."""
        queries, mask = normalised(queries, self.rows.dim), self.mask(allowed)
        return ranked(queries, k, mask.count, self.rows, partial(self.scan, mask), doubt=ROUNDING)

    def mask(self, allowed: Int64Array | None) -> Mask:
        """Which positions may be found. The last one is kept: most searches have the same filter."""
        known, version = self._last_mask, self.rows.version
        fixed = allowed is None or not allowed.flags.writeable  # else its owner could change it meanwhile
        if known is not None and known[0] is allowed and known[1] == version and fixed:
            return known[2]
        if allowed is None:
            passes = self.rows.alive.copy()
        else:
            passes = np.zeros(len(self.rows.ids), np.bool_)
            passes[self.rows.positions(allowed)] = True
        mask = Mask(passes, int(np.count_nonzero(passes)))
        self._last_mask = (allowed, version, mask)
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
        places, stop = np.flatnonzero(mask.passes[start:]) + start, len(mask.passes)
        kept = self._kept_units(start, stop) if 4 * self.rows.dim * (stop - start) <= KEPT_BYTES else None
        for first, last in pieces(len(places), ROWS_AT_ONCE):
            some = places[first:last]
            low, high = int(some[0]), int(some[-1]) + 1
            if kept is not None:
                yield some, kept[low - start : high - start] if len(some) == high - low else kept[some - start]
            else:
                half = self.rows.slice(low, high) if len(some) == high - low else self.rows.take(some)
                yield some, normalised(half, self.rows.dim)

    def _kept_units(self, start: int, stop: int) -> Float32Array:
        """The unit vectors of positions from `start` on, which never change: what is new is added."""
        kept = self._units.get(start, np.empty((0, self.rows.dim), np.float32))
        if len(kept) < stop - start:
            new = normalised(self.rows.slice(start + len(kept), stop), self.rows.dim)
            kept = np.concatenate([kept, new])
            self._units = {0: self._units[0], start: kept} if 0 in self._units else {start: kept}
        return kept
