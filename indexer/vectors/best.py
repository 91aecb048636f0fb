"""Scores and the best of them: pure functions on arrays, what `file_index.py` and `codes.py` count with.

In: unit vectors, scores, lists that queries ask for. Out: inner products, the largest of many. Next: `codes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from indexer.base.profile import cores
from indexer.base.types import Float32Array
from indexer.vectors.base import Int64Array

THREADED_BYTES: Final = 1 << 24  # of rows: less is looked at before a second thread has started
MOST_THREADS: Final = 4  # by then memory is the limit, not the cores
ONE_THREAD: Final = 1 << 18  # multiplications of a matrix product: so many OpenBLAS does in the thread that asks
FEWEST_ROWS: Final = 16  # of a slice
LARGE: Final = 1 << 26  # so many repay waiting for the other threads


def products(queries: Float32Array, rows: Float32Array) -> Float32Array:
    """Inner products of queries `[m, d]` and rows `[n, d]`, `[m, n]`. In slices that OpenBLAS leaves to one thread,
    where the whole is not large: on two busy cores a threaded product took up to a hundred times as long."""
    if rows.size * len(queries) > LARGE or rows.size * len(queries) <= ONE_THREAD:
        return np.asarray(queries @ rows.T)
    found = np.empty((len(queries), len(rows)), np.float32)
    step = max(FEWEST_ROWS, ONE_THREAD // max(1, queries.size))
    for start in range(0, len(rows), step):
        np.matmul(queries, rows[start : start + step].T, out=found[:, start : start + step])
    return found


def shared_out(numbers: range, size_bytes: int) -> list[range]:
    """Parts of some lists for as many threads as repay themselves, which read and multiply side by side."""
    threads = max(1, min(cores(), MOST_THREADS, size_bytes // THREADED_BYTES, len(numbers)))
    ends = [numbers.start + len(numbers) * part // threads for part in range(threads + 1)]
    return [range(*pair) for pair in pairwise(ends)]


def merged(parts: Sequence[tuple[Int64Array, Float32Array]], count: int) -> tuple[Int64Array, Float32Array]:
    """The `count` best of what each part found, positions and scores `[m, c]`; fewer where there are not as many."""
    if len(parts) == 1:
        return parts[0]
    positions, scores = (np.concatenate(some, axis=1) for some in zip(*parts, strict=True))
    chosen = largest(scores, count)
    return np.take_along_axis(positions, chosen, axis=1), np.take_along_axis(scores, chosen, axis=1)


def best_so_far(
    positions: Int64Array, scores: Float32Array, pending: list[tuple[Int64Array, Float32Array]], count: int
) -> tuple[Int64Array, Float32Array]:
    """The `count` best of what was best so far and what came since; fewer while there are not as many."""
    rows = len(scores)
    every = np.concatenate([scores, *(some for _, some in pending)], axis=1)  # [m, c]
    places = np.concatenate([np.empty(0, np.int64), *(some for some, _ in pending)])
    if every.shape[1] <= count:
        chosen = np.broadcast_to(np.arange(every.shape[1]), every.shape)
    else:
        chosen = largest(every, count)
    old = positions.shape[1]
    wide = np.concatenate([positions, np.broadcast_to(places, (rows, len(places)))], axis=1) if old else None
    kept = np.take_along_axis(wide, chosen, axis=1) if wide is not None else places[chosen]
    return kept, np.take_along_axis(every, chosen, axis=1)


def largest(scores: Float32Array, count: int) -> Int64Array:
    """The columns of the `count` largest of each row, in no order."""
    if count >= scores.shape[1]:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(-scores, count - 1, axis=1)[:, :count]


def falling(positions: Int64Array, scores: Float32Array) -> tuple[Int64Array, Float32Array]:
    """Both `[m, c]` by falling score."""
    order = np.argsort(-scores, axis=1)
    return np.take_along_axis(positions, order, axis=1), np.take_along_axis(scores, order, axis=1)


def by_list(nearest: Int64Array, tail: range) -> Iterator[tuple[int, Int64Array]]:
    """Each list that is wanted, with the queries that want it."""
    askers, wanted = np.divmod(np.argsort(nearest, axis=None, kind="stable"), nearest.shape[1])
    numbers = nearest[askers, wanted]
    cuts = np.flatnonzero(np.diff(numbers)) + 1
    for group in np.split(np.arange(len(numbers)), cuts):
        yield int(numbers[group[0]]), askers[group]
    everybody = np.arange(len(nearest))
    for number in tail:
        yield number, everybody
