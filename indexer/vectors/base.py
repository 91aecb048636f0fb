"""What an index of vectors promises, and the one way in which every backend ranks.

In: float32 vectors under int64 ids. Out: the `k` nearest by cosine. What holds for every backend, and is tested:

* Vectors are normalised when added, queries when searched: scores are cosines, and a vector of zeros scores 0.
* Adding an id that is there replaces its vector; removing one that is not there does nothing.
* Results are sorted by falling score, equal scores by rising id, and are the same from every exact backend. Rows with
  fewer than `k` results end in id -1 and score -inf.
* An approximate backend may miss some of the `k` nearest; the scores of what it returns are exact all the same, it
  returns as many as there are, and never one outside `allowed`.

Next: `exact.py`, the truth in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from indexer.base.errors import DimensionMismatch
from indexer.base.types import Float32Array

Int64Array = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SLACK: Final = 32  # candidates fetched beyond k, so that rounding cannot drop one
ROUNDING: Final = 2e-5  # float32 inner products of unit vectors from two libraries differ by less
QUERIES_AT_ONCE: Final = 256


class VectorIndex(Protocol):
    """An index that lives in memory; `save` and `load` make it a file, which is only ever a cache of the catalog."""

    dim: int

    def __len__(self) -> int:
        """Vectors in the index."""

    def ids(self) -> Int64Array:
        """The ids, int64 `[n]`, in the order they are stored in."""

    def add(self, ids: Int64Array, vectors: Float32Array) -> None:
        """Add or replace: ids int64 `[n]` without repeats, vectors float32 `[n, d]`. Raises: DimensionMismatch."""

    def remove(self, ids: Int64Array) -> int:
        """Take these ids out; the number that were in."""

    def search(
        self, queries: Float32Array, k: int, allowed: Int64Array | None = None
    ) -> tuple[Int64Array, Float32Array]:
        """Queries `[m, d]` -> ids `[m, k]` and cosines `[m, k]`, only ids in `allowed` where it is given."""

    def save(self, path: Path) -> None:
        """Write to `path`, complete when this returns."""


@runtime_checkable
class KeepsVectors(Protocol):
    """An index that can show the vectors it holds, not an approximation of them."""

    def vectors(self) -> Float32Array:
        """The unit vectors, float32 `[n, d]`, in the order of `ids`; valid until the next change."""


def normalised(vectors: Float32Array, dim: int) -> Float32Array:
    """Rows of length one (zeros stay zeros), float32 `[n, d]`. Raises: DimensionMismatch."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise DimensionMismatch(f"index has d={dim}, vectors have shape {vectors.shape}; run 'mmsearch rebuild'")
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))  # [n]
    lengths[lengths == 0] = 1
    return np.asarray(vectors / lengths[:, None], np.float32)


def checked_ids(ids: Int64Array, count: int) -> Int64Array:
    """Ids as int64 `[n]`. Raises: ValueError when one repeats, is negative, or their number is not `count`."""
    ids = np.ascontiguousarray(ids, np.int64)
    if ids.shape != (count,):
        raise ValueError(f"{count} vectors came with ids of shape {ids.shape}")
    if count and (ids.min() < 0 or len(np.unique(ids)) != count):
        raise ValueError("ids must be >= 0 and must not repeat within one call")
    return ids


Fetch = Callable[[Float32Array, int], tuple[Int64Array, Float32Array]]
Gather = Callable[[Int64Array], Float32Array]
Originals = Callable[[Int64Array], Float32Array]  # ids [n] -> their vectors [n, d] as the catalog has them


def rank(
    queries: Float32Array,
    k: int,
    available: int,
    ids: Int64Array,
    gather: Gather,
    fetch: Fetch,
    *,
    spare: int = SLACK,
    doubt: float = ROUNDING,
) -> tuple[Int64Array, Float32Array]:
    """The exact `k` best from a backend's candidates, scored and ordered in the same way for every backend.

    Args:
        queries: unit rows, float32 `[m, d]`.
        k: results wanted.
        available: how many vectors may be returned at all.
        ids: the id at each position, int64 `[n]`.
        gather: positions of any shape `[...]` -> their unit vectors, float32 `[..., d]`.
        fetch: (queries, count) -> positions `[m, count]`, scores `[m, count]`, the scores falling.
        spare: candidates fetched beyond `k` at first.
        doubt: two scores of `fetch` that differ by less may stand in the wrong order.
    """
    found_ids = np.full((len(queries), k), -1, np.int64)
    found_scores = np.full((len(queries), k), -np.inf, np.float32)
    width = min(k, available)
    if not width:
        return found_ids, found_scores
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        part = slice(start, start + QUERIES_AT_ONCE)
        positions = _candidates(queries[part], width, available, fetch, spare, doubt)  # [m, count]
        pairs = np.einsum("md,mcd->mc", queries[part], gather(positions), dtype=np.float64)
        scores = pairs.astype(np.float32)  # summed in float64 and rounded once: equal vectors get equal scores
        order = np.lexsort((ids[positions], -scores), axis=1)[:, :width]
        found_ids[part, :width] = np.take_along_axis(ids[positions], order, axis=1)
        found_scores[part, :width] = np.take_along_axis(scores, order, axis=1)
    return found_ids, found_scores


def _candidates(
    queries: Float32Array, width: int, available: int, fetch: Fetch, spare: int, doubt: float
) -> Int64Array:
    """Positions that hold the best `width` for certain: fetched until the last is clearly worse than the k-th."""
    count = min(available, width + spare)
    while True:
        positions, scores = fetch(queries, count)
        settled = scores[:, -1] < scores[:, width - 1] - doubt
        if count == available or bool(settled.all()):
            return positions
        count = min(available, 4 * count)
