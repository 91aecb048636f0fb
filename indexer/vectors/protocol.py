"""What an index of vectors promises, and the one way in which every backend ranks.

In: vectors under int64 ids. Out: the `k` nearest by cosine. What holds for every backend, and is tested:

* Vectors are kept at half precision, as the catalog has them. Scores are cosines of what is kept, summed in float64
  and rounded once: equal vectors get equal scores. A vector of zeros scores 0, and so does one that holds
  what is no number: a catalog may hold anything.
* Adding an id that is there replaces its vector; removing one that is not there does nothing.
* Results are sorted by falling score, equal scores by rising id, and are the same from every exact backend. Rows with
  fewer than `k` results end in id -1 and score -inf.
* An approximate backend may miss some of the `k` nearest; the scores of what it returns are exact all the same, it
  returns as many as there are, and never one outside `allowed`.

Next: `rows.py`, which keeps the vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np

from indexer.base.errors import DimensionMismatch
from indexer.base.types import Float32Array
from indexer.vectors.rows import Float16Array, Int64Array, Rows, pieces

SLACK: Final = 32  # candidates fetched beyond k, so that rounding cannot drop one
ROUNDING: Final = 2e-5  # float32 inner products of unit vectors from two libraries differ by less

Candidates = tuple[Int64Array, Float32Array]  # positions [m, c], -1 where there are fewer, and scores [m, c], falling
Fetch = Callable[[Float32Array, int], Candidates]  # (queries, count) -> the `count` best


class VectorIndex(Protocol):
    """A search of the rows of a file and what came since."""

    rows: Rows  # what changes, changes there

    def search(self, queries: Float32Array, k: int, allowed: Int64Array | None = None) -> Candidates:
        """Queries `[m, d]` -> ids `[m, k]` and cosines `[m, k]`, only ids in `allowed` where it is given."""


def normalised(vectors: Float32Array | Float16Array, dim: int) -> Float32Array:
    """Rows of length one (zeros stay zeros, what is no number becomes zeros), float32 `[n, d]`.

    Raises: DimensionMismatch.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise DimensionMismatch(f"index has d={dim}, vectors have shape {vectors.shape}; run 'mmsearch rebuild'")
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))  # [n]
    lengths[lengths == 0] = 1
    with np.errstate(invalid="ignore"):
        units = np.asarray(vectors / lengths[:, None], np.float32)
    if not np.isfinite(lengths).all():
        units[~np.isfinite(lengths)] = 0
    return units


def cosines(query: Float32Array, vectors: Float16Array) -> Float32Array:
    """A unit query `[d]` and vectors of any length `[n, d]` -> float32 `[n]`, summed in float64, rounded once."""
    wide = vectors.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    lengths[lengths == 0] = 1
    with np.errstate(invalid="ignore"):
        found = np.asarray(np.einsum("nd,d->n", wide, query.astype(np.float64)) / lengths, np.float32)
    return found if np.isfinite(lengths).all() else np.where(np.isfinite(lengths), found, 0)


def ranked(
    queries: Float32Array, k: int, available: int, rows: Rows, fetch: Fetch, *, spare: int = SLACK, doubt: float
) -> Candidates:
    """The best `k` of a backend's candidates by their exact cosines: ids `[m, k]`, scores `[m, k]`.

    `available` is how many may be returned at all, `fetch` what finds `k + spare` candidates at first. Where two scores
    of `fetch` that differ by less than `doubt` may stand in the wrong order, it is asked for more until the last one is
    clearly worse than the k-th; an approximate search, `doubt` minus infinity, is asked once.
    """
    ids = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    width = min(k, available)
    if not width or not len(queries):
        return ids, scores
    count = min(available, width + spare)
    positions, rough = fetch(queries, count)
    while count < available and not (rough[:, -1] < rough[:, width - 1] - doubt).all():
        count = min(available, 4 * count)
        positions, rough = fetch(queries, count)
    for row, (query, some) in enumerate(zip(queries, positions, strict=True)):
        met = some[some >= 0]
        parts = [cosines(query, rows.take(met[start:stop])) for start, stop in pieces(len(met))]
        exact, names = np.concatenate(parts or [np.empty(0, np.float32)]), rows.ids[met]
        order = np.lexsort((names, -exact))[:width]
        ids[row, : len(order)], scores[row, : len(order)] = names[order], exact[order]
    return ids, scores


def joined(one: Candidates, other: Candidates) -> Candidates:
    """What two disjoint sets of rows have, side by side."""
    return np.concatenate([one[0], other[0]], axis=1), np.concatenate([one[1], other[1]], axis=1)


def chosen_columns(candidates: Candidates, columns: Int64Array) -> Candidates:
    """Some columns of each row, `[m, s]`, in their order."""
    return np.take_along_axis(candidates[0], columns, axis=1), np.take_along_axis(candidates[1], columns, axis=1)


def falling(candidates: Candidates) -> Candidates:
    """By falling score."""
    return chosen_columns(candidates, np.argsort(-candidates[1], axis=1, kind="stable"))
