"""Matrix products in slices that OpenBLAS leaves to the thread that asks.

In: two matrices. Out: their product. On two busy cores a threaded product took up to a hundred times as long.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from indexer.base.types import Float32Array

ONE_THREAD_PRODUCTS: Final = 1 << 18  # multiplications of one matrix product that OpenBLAS does without more threads
FEWEST_ROWS: Final = 16  # of a slice
LARGE_PRODUCTS: Final = 1 << 26  # multiplications that are worth waiting for the other threads


def products(queries: Float32Array, rows: Float32Array) -> Float32Array:
    """Inner products of queries `[m, d]` and rows `[n, d]`, float32 `[m, n]`."""
    if rows.size * len(queries) > LARGE_PRODUCTS or rows.size * len(queries) <= ONE_THREAD_PRODUCTS:
        return np.asarray(queries @ rows.T)
    found = np.empty((len(queries), len(rows)), np.float32)
    step = max(FEWEST_ROWS, ONE_THREAD_PRODUCTS // max(1, queries.size))
    for start in range(0, len(rows), step):
        np.matmul(queries, rows[start : start + step].T, out=found[:, start : start + step])
    return found
