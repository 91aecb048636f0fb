"""Unit vectors as one byte a dimension, for libraries whose float32 rows would not stay in memory.

In: float32 rows. Out: uint8 rows and back, and scores straight from the bytes. The arithmetic is FAISS's QT_8bit: each
dimension's range is cut into 255 steps, and a byte stands for the middle of its step. Scores of bytes only choose
candidates; what is found is ranked again by the catalog's vectors, `doubt` says how far down one has to look.
Next: `layout.py`, which writes both kinds of row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from indexer.base.types import Float32Array, UInt8Array
from indexer.vectors.best import products

CODED_BYTES: Final = 1 << 30  # of float32 rows; beyond, a laptop's page cache drops them between two searches
STEPS: Final = 255
MARGIN: Final = 0.1  # of the range seen, on either side: for vectors that come later
SPARE: Final = 128  # candidates ranked again beyond k, at first
SIGMAS: Final = 7.0  # rounding errors are uniform, their sum strictly sub-Gaussian: beyond 7 sigma one pair in 10^10
ROWS_AT_ONCE: Final = 1024  # decoded at a time, so that they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Scale:
    """`lowest` and `width` of each dimension's range, float32 `[d]`."""

    lowest: Float32Array
    width: Float32Array

    @classmethod
    def fitted(cls, parts: Iterable[Float32Array]) -> Scale:
        """The range of all the vectors in `parts`, each `[n, d]`, and a margin."""
        ends = [(part.min(axis=0), part.max(axis=0)) for part in parts]
        least = np.min([low for low, _ in ends], axis=0)
        most = np.max([high for _, high in ends], axis=0)
        width = np.maximum((1 + 2 * MARGIN) * (most - least), np.float32(1e-6))
        middle = (least + most) / 2
        return cls(np.asarray(middle - width / 2, np.float32), np.asarray(width, np.float32))

    def encode(self, vectors: Float32Array) -> UInt8Array:
        """float32 `[n, d]` -> uint8 `[n, d]`; what lies outside the range becomes its edge."""
        steps = (vectors - self.lowest) * (STEPS / self.width)
        return np.clip(steps, 0, STEPS, out=steps).astype(np.uint8)

    def decode(self, codes: UInt8Array) -> Float32Array:
        """uint8 `[..., d]` -> float32 `[..., d]`."""
        vectors = codes.astype(np.float32)
        vectors += np.float32(0.5)
        vectors *= self.width / STEPS
        vectors += self.lowest
        return vectors

    def scores(self, queries: Float32Array, codes: UInt8Array) -> Float32Array:
        """Inner products of queries `[m, d]` with what `codes` `[n, d]` stand for, `[m, n]`: the ranges go into the
        queries, so that the bytes need no more than to become numbers."""
        bent = np.asarray(queries * (self.width / STEPS), np.float32)  # [m, d]
        constant = queries @ self.lowest + 0.5 * bent.sum(axis=1)  # [m]
        found = np.empty((len(queries), len(codes)), np.float32)
        at_once = ROWS_AT_ONCE if len(queries) < 64 else 8 * ROWS_AT_ONCE
        scratch = np.empty((min(at_once, len(codes)), codes.shape[1]), np.float32)
        for start in range(0, len(codes), at_once):
            part = codes[start : start + at_once]
            numbers = scratch[: len(part)]
            np.copyto(numbers, part)
            found[:, start : start + len(part)] = products(bent, numbers)
        found += constant[:, None]
        return found

    def doubt(self, queries: Float32Array) -> float:
        """By how much two scores must differ to be in the right order, for the worst of `queries` `[m, d]`."""
        errors = np.square(queries * (self.width / STEPS)).sum(axis=1) / 12  # [m], variances
        return SIGMAS * float(np.sqrt(2 * errors.max(initial=0)))
