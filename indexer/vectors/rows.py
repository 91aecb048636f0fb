"""Vectors by position, at half precision: those of a mapped file first, then what came since, in the order it came.

In: float16 vectors under int64 ids. Out: the same, by position or by id. A position never moves; what was removed or
replaced stays as a tombstone until the next file is written. The file is a plain matrix `[n, d]`, little-endian, no
header: number, length and ids of its rows are in the catalog, as is its checksum. Next: `exact.py`, which searches it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexer.base.errors import DimensionMismatch, LibraryCorrupt
from indexer.base.hashed_file import hashed_file
from indexer.base.plain_files import reading
from indexer.base.types import Float32Array

Int64Array = NDArray[np.int64]
Float16Array = NDArray[np.float16]
BoolArray = NDArray[np.bool_]

ROWS_AT_ONCE: Final = 8192


class Rows:
    """`ids` int64 `[n]` and `alive` bool `[n]`, by position; `version` counts changes."""

    def __init__(self, dim: int, ids: Int64Array | None = None, matrix: Float16Array | None = None) -> None:
        self.dim = dim
        self.ids: Int64Array = np.empty(0, np.int64) if ids is None else ids  # of tombstones, too
        self.alive: BoolArray = np.ones(len(self.ids), np.bool_)
        self.version = 0
        self._new: Float16Array = np.empty((0, dim), np.float16)
        self._matrix = self._new if matrix is None else matrix
        self._order: Int64Array | None = None  # positions that are alive, by rising id

    @classmethod
    def open(cls, path: Path, ids: Int64Array, dim: int) -> Rows:
        """The rows of a file, mapped. Raises: LibraryCorrupt, NotPlainFile, FileNotFoundError."""
        with reading(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes != 2 * dim * len(ids):
                raise LibraryCorrupt(f"{path} has {size_bytes} bytes, {len(ids)} rows of {dim} belong in it")
            return cls(dim, ids, np.asarray(np.memmap(file, "<f2", "r", shape=(len(ids), dim))) if len(ids) else None)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.alive))

    def add(self, ids: Int64Array, vectors: Float32Array | Float16Array) -> None:
        """Add or replace: ids int64 `[n]` without repeats, vectors `[n, d]`. Raises: DimensionMismatch, ValueError."""
        ids, vectors = np.ascontiguousarray(ids, np.int64), np.array(vectors, np.float16)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise DimensionMismatch(f"index has d={self.dim}, not {vectors.shape[-1]}; run 'mmsearch rebuild'")
        if ids.shape != (len(vectors),):
            raise ValueError(f"{len(vectors)} vectors came with ids of shape {ids.shape}")
        if (ids < 0).any() or len(np.unique(ids)) != len(ids):
            raise ValueError("ids must be >= 0 and must not repeat within one call")
        self.remove(ids)
        self.ids = np.concatenate([self.ids, ids])
        self.alive = np.concatenate([self.alive, np.ones(len(ids), np.bool_)])
        self._new = np.concatenate([self._new, vectors])
        self._changed()

    def remove(self, ids: Int64Array) -> int:
        """Take ids out; the number that were in."""
        positions = self.positions(ids)
        self.alive[positions] = False
        self._changed()
        return len(positions)

    def _changed(self) -> None:
        self.version, self._order = self.version + 1, None

    def positions(self, ids: Int64Array) -> Int64Array:
        """The positions of those of `ids` that are in, in the order of `ids`, int64."""
        if self._order is None:
            places = np.flatnonzero(self.alive)
            held = self.ids[places]
            self._order = places if bool((held[1:] > held[:-1]).all()) else places[np.argsort(held)]
        if not len(self._order):
            return np.empty(0, np.int64)
        held = self.ids[self._order]
        places = np.minimum(np.searchsorted(held, ids), len(held) - 1)
        found: Int64Array = self._order[places[held[places] == ids]]
        return found

    def take(self, positions: Int64Array) -> Float16Array:
        """The vectors at positions `[n]`, float16 `[n, d]`, as they were given."""
        first = len(self._matrix)
        if not len(self._new):
            return self._matrix[positions]
        vectors, new = np.empty((len(positions), self.dim), np.float16), positions >= first
        vectors[~new], vectors[new] = self._matrix[positions[~new]], self._new[positions[new] - first]
        return vectors

    def slice(self, start: int, stop: int) -> Float16Array:
        """The vectors at positions from `start` to `stop`, float16 `[n, d]`; a view where they lie together."""
        first = len(self._matrix)
        if stop <= first:
            return self._matrix[start:stop]
        new = self._new[max(0, start - first) : stop - first]
        return new if start >= first else np.concatenate([self._matrix[start:], new])

    def vectors_of(self, ids: Int64Array) -> Float16Array:
        """The vectors of those of `ids` that are in, in the order of `ids`, float16 `[n, d]`."""
        return self.take(self.positions(ids))


def write_rows(path: Path, parts: Iterable[Float16Array]) -> tuple[str, int]:
    """Write a new file of rows, piece by piece; its SHA-256, hexadecimal, and its size in bytes."""
    with hashed_file(path) as file:
        for part in parts:
            file.write(np.ascontiguousarray(part, "<f2"))
    return file.checksum, file.size_bytes


def pieces(count: int, at_once: int = ROWS_AT_ONCE) -> Iterator[tuple[int, int]]:
    """Start and stop of each piece of `count` rows."""
    for start in range(0, count, at_once):
        yield start, min(start + at_once, count)
