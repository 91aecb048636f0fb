"""When an index is cut into lists, by which centroids, and how many of them a search looks at: measured, not believed.

In: an index, and vectors of texts as somebody's questions. Out: `Lists`, or None where searching everything is the
better answer: few vectors, a search of everything within `EXACT_MS`, no texts to measure with, or texts so far from
the photos that too many lists would be needed. Recall is measured with texts, never with the photos themselves: a
question lies outside the distribution of the answers, and needs more lists than a photo that looks for photos.
Next: `choose.py`.
"""

from __future__ import annotations

import importlib
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from indexer.base.types import Float32Array
from indexer.vectors.base import Int64Array, Originals, normalised
from indexer.vectors.guide import Guide

if TYPE_CHECKING:
    from indexer.vectors.file_index import FileIndex

LISTS_FROM: Final = 50_000  # vectors; below, a search of everything is always fast enough
EXACT_MS: Final = 20.0
RECALL: Final = 0.95  # of the 10 nearest, so many are found
DEPTH: Final = 10
QUESTIONS: Final = 400  # texts measured with
FEWEST_QUESTIONS: Final = 50
ROUNDS: Final = 8  # of k-means
SAMPLE_PER_LIST: Final = 40
ROWS_AT_ONCE: Final = 8192

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Lists:
    """Centroids float32 `[c, d]`, the number of lists a search looks at, and what was measured."""

    centroids: Float32Array
    probes: int
    facts: dict[str, Any]


def planned(
    index: FileIndex, questions: Float32Array, answers: Int64Array | None, originals: Originals | None = None
) -> Lists | None:
    """The lists `index` should be written in, or None to search everything. An index of bytes always has lists.

    Args:
        index: what will be searched.
        questions: vectors of texts, float32 `[q, d]`.
        answers: ids that questions look for (photos); None for all.
        originals: where an index of bytes has its vectors from.
    """
    among = len(index) if answers is None else len(answers)
    if len(index) < LISTS_FROM or len(questions) < FEWEST_QUESTIONS or among < 10 * DEPTH:
        return everything(index) if index.is_coded else None
    questions = normalised(questions[:QUESTIONS], index.dim)
    exact_ms = _exact_ms(index, questions)
    if exact_ms <= EXACT_MS and not index.is_coded:
        return None
    centroids = centroids_for(index)
    probes, recall, low = probes_for(index, centroids, questions, answers, originals)
    if probes > len(centroids) // 8:
        log.info("%d of %d lists for a recall of %.3f: searching everything instead", probes, len(centroids), recall)
        return Lists(centroids, len(centroids), {}) if index.is_coded else None
    facts = {
        "lists": len(centroids),
        "probes": probes,
        "recall_at_10": round(recall, 4),
        "recall_at_10_low": round(low, 4),
        "questions": len(questions),
        "exact_ms": round(exact_ms, 1),
        "bits": 8 if index.is_coded else 32,
    }
    return Lists(centroids, probes, facts)


def everything(index: FileIndex) -> Lists:
    """Lists all of which are looked at: how bytes are kept where nothing says what a shorter search would miss."""
    centroids = centroids_for(index)
    return Lists(centroids, len(centroids), {})


def centroids_for(index: FileIndex) -> Float32Array:
    """Those the file has while they are about as many as they should be, else new ones, float32 `[c, d]`."""
    wanted = lists_for(len(index))
    old = index.file.centroids if index.file is not None else None
    return old if old is not None and wanted / 2 <= len(old) <= wanted * 2 else trained(index, wanted)


def lists_for(count: int) -> int:
    """How many lists `count` vectors are cut into: as many as make looking at centroids and at lists cost alike."""
    return max(1, round(2 * math.sqrt(count)))


def trained(index: FileIndex, lists: int) -> Float32Array:
    """Centroids `[lists, d]` of a sample, unit length."""
    rng = np.random.default_rng(0)
    alive = index.alive()
    sample = alive if len(alive) <= SAMPLE_PER_LIST * lists else rng.choice(alive, SAMPLE_PER_LIST * lists, False)
    return k_means(index.gather(np.sort(sample)), lists)


def k_means(vectors: Float32Array, clusters: int) -> Float32Array:
    """Unit centroids `[c, d]` of unit vectors `[n, d]`, always the same: spherical k-means (Dhillon & Modha 2001)."""
    try:
        faiss: Any = importlib.import_module("faiss")
    except ImportError:
        return _k_means(vectors, clusters, np.random.default_rng(0))
    kmeans = faiss.Kmeans(vectors.shape[1], clusters, niter=ROUNDS, spherical=True, seed=1, min_points_per_centroid=1)
    kmeans.train(vectors)
    return np.asarray(kmeans.centroids, np.float32)


def assign(index: FileIndex, centroids: Float32Array) -> Int64Array:
    """The list of every vector, int64 `[n]`, in stored order; what stands in a list stays there."""
    alive = index.alive()
    numbers = np.empty(len(alive), np.int64)
    known = 0
    if index.file is not None and index.file.centroids is centroids:
        known = int(np.searchsorted(alive, index.file.count))
        numbers[:known] = index.list_of()[alive[:known]]
    guide = Guide.to(centroids)
    for start in range(known, len(alive), ROWS_AT_ONCE):
        part = index.gather(alive[start : start + ROWS_AT_ONCE])
        numbers[start : start + len(part)] = guide.nearest(part)
    return numbers


def probes_for(
    index: FileIndex,
    centroids: Float32Array,
    questions: Float32Array,
    answers: Int64Array | None,
    originals: Originals | None = None,
) -> tuple[int, float, float]:
    """The fewest lists whose recall is `RECALL` beyond chance, that recall, and its lower bound (one-sided, 95 %).

    A list that a question would look at as its r-th holds a true neighbour: with r lists or more, it is found. So the
    ranks of the lists of the true neighbours say the recall for every number of lists at once.
    """
    nearest = index.search_exactly(questions, DEPTH, answers, originals)  # [q, 10] positions
    holders = Guide.to(centroids).nearest(index.gather(nearest.ravel())).reshape(nearest.shape)
    order = np.argsort(-(questions @ centroids.T), axis=1)  # [q, c]
    ranks = np.argsort(order, axis=1)  # [q, c]: the rank of each list
    needed = np.take_along_axis(ranks, holders, axis=1) + 1  # [q, 10]
    for probes in np.unique(np.sort(needed, axis=None)):
        found = (needed <= probes).mean(axis=1)  # [q]
        recall, low = float(found.mean()), float(found.mean() - 1.645 * found.std() / math.sqrt(len(found)))
        if low >= RECALL:
            return int(probes), recall, low
    return len(centroids), 1.0, 1.0


def _exact_ms(index: FileIndex, questions: Float32Array) -> float:
    """The best of seven: what else the machine does just now is not the library's size."""
    times = []
    for question in questions[:8]:
        started = time.perf_counter()
        index.search_exactly(question[None, :], DEPTH, None)
        times.append(1000 * (time.perf_counter() - started))
    return min(times[1:])  # the first one reads the file


def _k_means(vectors: Float32Array, lists: int, rng: np.random.Generator) -> Float32Array:
    centroids = vectors[rng.choice(len(vectors), lists, False)].copy()
    for _ in range(ROUNDS):
        sums, counts = np.zeros_like(centroids), np.zeros(lists, np.int64)
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            part = vectors[start : start + ROWS_AT_ONCE]
            numbers = np.argmax(part @ centroids.T, axis=1)
            np.add.at(sums, numbers, part)
            counts += np.bincount(numbers, minlength=lists)
        empty = counts == 0
        sums[empty] = vectors[rng.choice(len(vectors), int(empty.sum()), False)]
        centroids = normalised(sums, vectors.shape[1])
    return centroids
