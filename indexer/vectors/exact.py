"""Exact search in numpy: the truth other backends are tested against, and what serves where FAISS is not installed.

In: vectors under ids. Out: exact neighbours. One matrix product a search: 100,000 vectors of 256 take some tens of
milliseconds. Next: `file_index.py`, the same answers from a file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import Float32Array
from indexer.vectors.base import Int64Array, checked_ids, normalised, rank


class ExactIndex:
    """A matrix of unit vectors and their ids."""

    suffix = ".npy"

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._ids: Int64Array = np.empty(0, np.int64)  # [n]
        self._vectors: Float32Array = np.empty((0, dim), np.float32)  # [n, d]

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> Int64Array:
        """The ids, int64 `[n]`, in stored order."""
        return self._ids

    def vectors(self) -> Float32Array:
        """The unit vectors, float32 `[n, d]`, in stored order."""
        return self._vectors

    def add(self, ids: Int64Array, vectors: Float32Array) -> None:
        """Add or replace, see `VectorIndex`."""
        vectors = normalised(vectors, self.dim)
        ids = checked_ids(ids, len(vectors))
        self.remove(ids)
        self._ids = np.concatenate([self._ids, ids])
        self._vectors = np.concatenate([self._vectors, vectors])

    def remove(self, ids: Int64Array) -> int:
        """Take ids out, see `VectorIndex`."""
        gone = np.isin(self._ids, ids)
        if gone.any():
            self._ids, self._vectors = self._ids[~gone], self._vectors[~gone]
        return int(gone.sum())

    def search(
        self, queries: Float32Array, k: int, allowed: Int64Array | None = None
    ) -> tuple[Int64Array, Float32Array]:
        """The `k` nearest, see `VectorIndex`."""
        queries = normalised(queries, self.dim)
        ids, vectors = self._ids, self._vectors
        if allowed is not None:
            keep = np.isin(ids, allowed)
            ids, vectors = ids[keep], vectors[keep]

        def fetch(part: Float32Array, count: int) -> tuple[Int64Array, Float32Array]:
            scores = part @ vectors.T  # [m, n]
            if count < len(ids):
                best = np.argpartition(-scores, count - 1, axis=1)[:, :count]  # [m, count]
            else:
                best = np.broadcast_to(np.arange(len(ids)), scores.shape)
            best_scores = np.take_along_axis(scores, best, axis=1)
            order = np.argsort(-best_scores, axis=1)
            return np.take_along_axis(best, order, axis=1), np.take_along_axis(best_scores, order, axis=1)

        return rank(queries, k, len(ids), ids, vectors.__getitem__, fetch)

    def save(self, path: Path) -> None:
        """Two arrays in one file: ids `[n]`, vectors `[n, d]`."""
        with path.open("wb") as file:
            np.save(file, self._ids, allow_pickle=False)
            np.save(file, self._vectors, allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> ExactIndex:
        """Read what `save` wrote. Raises: LibraryCorrupt."""
        try:
            with path.open("rb") as file:
                ids = np.load(file, allow_pickle=False)
                vectors = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise LibraryCorrupt(f"{path} is not an index file ({error})") from error
        if ids.dtype != np.int64 or vectors.dtype != np.float32 or vectors.ndim != 2 or ids.shape != vectors.shape[:1]:
            raise LibraryCorrupt(f"{path} holds arrays of {ids.dtype}{ids.shape} and {vectors.dtype}{vectors.shape}")
        index = cls(vectors.shape[1])
        index._ids, index._vectors = ids, vectors
        return index
