"""Which form an index has, and its parameters: by size and by measure.

In: rows, and vectors of texts as questions. Out: an IVF index and its `IndexFacts`, or those of an exact search: for
few vectors, without texts to measure with, or where texts lie so far from the photos that a quarter of the lists would
not do. Recall is measured with texts, never with photos themselves: a question lies outside the distribution of the
answers, and needs more lists than a photo that looks for photos.

HNSW, and scalar quantizers in the lists, were measured beside (`tests/bench/ann.py`) and left out: HNSW takes much
longer to build and as much memory as the vectors, SQ8 and SQfp16 are slower at the same recall. Next: `gpu.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from indexer.base.types import EXACT_SEARCH, Float32Array, IndexFacts
from indexer.vectors.faiss_index import DEPTH, FaissIndex, Probing, load_faiss
from indexer.vectors.protocol import normalised
from indexer.vectors.rows import Int64Array, Rows

IVF_FROM: Final = 20_000  # vectors; below, an exact search is always fast enough
RECALL: Final = 0.95  # of the 10 nearest, on average
QUESTIONS: Final = 400  # texts measured with
FEWEST_QUESTIONS: Final = 50
DEPTHS: Final = (30, 50, 75, 100, 150, 200, 300, 400)  # candidates ranked again
LADDER: Final = 1.1  # from one number of lists to the next that is tried
MOST_PROBED: Final = 4  # one list in as many, at the most
ROUNDS: Final = 8  # of k-means
SAMPLE_PER_LIST: Final = 40
SCAN_NS, RANK_NS, CENTROID_NS = 12.0, 800.0, 40.0  # of a vector scanned, one ranked again, a centroid compared

log = logging.getLogger(__name__)


def planned(
    rows: Rows, questions: Float32Array, answers: Int64Array | None, old: tuple[FaissIndex, IndexFacts] | None = None
) -> tuple[FaissIndex | None, IndexFacts]:
    """The IVF index of `rows`, by rising id, and its facts; without one they are searched exactly.

    `questions` are vectors of texts, float32 `[q, d]`, `answers` the ids they look for (photos), None for all; `old` is
    an index of much the same vectors, whose lists are taken over: it is used up.
    """
    among = len(rows) if answers is None else len(answers)
    if len(rows) < IVF_FROM or len(questions) < FEWEST_QUESTIONS or among < 10 * DEPTH:
        return None, EXACT_SEARCH
    questions = normalised(questions[:QUESTIONS], rows.dim)
    if old is not None and not old[1].trained_on / 2 <= len(rows) <= old[1].trained_on * 2:
        old = None  # the library has doubled, or halved, since its centroids were trained
    for index, trained_on in _tried(rows, old):
        probing, recall, low = measured(index, questions, answers)
        if low >= RECALL:
            shape = (index.faiss.nlist, probing.nprobe, probing.depth, trained_on)
            return FaissIndex(rows, index.faiss, probing), IndexFacts("ivf", *shape, recall, low, len(questions))
    log.info("a recall of %.3f by a quarter of %d lists: searching everything instead", recall, index.faiss.nlist)
    return None, IndexFacts(questions=len(questions))


def _tried(rows: Rows, old: tuple[FaissIndex, IndexFacts] | None) -> Iterator[tuple[FaissIndex, int]]:
    if old is not None:
        yield refilled(rows, old[0]), old[1].trained_on
    yield trained(rows), len(rows)


def lists_for(count: int) -> int:
    """How many lists `count` vectors are cut into: twice the root.

    Four times the root scans 3 % of a million in place of 4, is no faster for it, and takes twice as long to build.
    """
    return max(1, round(2 * math.sqrt(count)))


def trained(rows: Rows) -> FaissIndex:
    """A new IVF index of all `rows`: centroids of a sample by spherical k-means (Dhillon & Modha 2001,
    https://doi.org/10.1023/A:1007612920971), always the same, then block after block."""
    faiss, count = load_faiss(), len(rows.ids)
    lists = lists_for(count)
    sample = np.sort(np.random.default_rng(0).choice(count, min(count, SAMPLE_PER_LIST * lists), replace=False))
    units = normalised(rows.take(sample), rows.dim)
    quantizer = faiss.IndexFlatIP(rows.dim)
    kmeans = faiss.Kmeans(rows.dim, lists, niter=ROUNDS, spherical=True, seed=1, min_points_per_centroid=1)
    kmeans.train(units)
    quantizer.add(kmeans.centroids)
    empty = new_ivf(quantizer, rows.dim, lists)
    empty.train(units)
    return FaissIndex(rows, empty, Probing(1, DEPTH)).absorb()


def new_ivf(quantizer: Any, dim: int, lists: int) -> Any:
    """An empty IVF index; of half-precision vectors where this build of FAISS has no RaBitQ for fast scans."""
    faiss, metric = load_faiss(), load_faiss().METRIC_INNER_PRODUCT
    if hasattr(faiss, "IndexIVFRaBitQFastScan"):
        index = faiss.IndexIVFRaBitQFastScan(quantizer, dim, lists, metric)
    else:
        index = faiss.IndexIVFScalarQuantizer(quantizer, dim, lists, faiss.ScalarQuantizer.QT_fp16, metric, False)
    quantizer.this.disown()
    index.own_fields = True
    return index


def refilled(rows: Rows, old: FaissIndex) -> FaissIndex:
    """All `rows` in the old index's lists: its centroids stay, which is most of what an index takes to make.

    What is gone is not taken out one by one: in FAISS 1.15.1 `remove_ids` spoils the bits of vectors added later.
    """
    old.faiss.reset()
    return FaissIndex(rows, old.faiss, old.probing).absorb()


def measured(index: FaissIndex, questions: Float32Array, answers: Int64Array | None) -> tuple[Probing, float, float]:
    """The cheapest search whose recall@10 is `RECALL` beyond chance, that recall, and its lower bound.

    One search with many candidates says the recall for every smaller number of them: a neighbour that stands at the
    r-th place by estimate is found when r or more are ranked again.
    """
    mask = index.exact.mask(answers)
    truth = index.rows.positions(index.exact.search(questions, DEPTH, answers)[0].ravel()).reshape(-1, DEPTH)
    lists, per_list = index.faiss.nlist, index.faiss.ntotal / index.faiss.nlist
    best: tuple[float, Probing, float, float] | None = None
    reached = (Probing(lists, DEPTHS[-1]), 0.0, 0.0)
    nprobe = max(1, lists // 100)
    while nprobe <= max(1, lists // MOST_PROBED):
        scanned = per_list * nprobe / max(mask.share, 1e-6)
        if best is not None and _cost_ns(lists, scanned, DEPTHS[0]) > best[0]:
            break
        tried = FaissIndex(index.rows, index.faiss, Probing(nprobe, DEPTHS[-1]))
        ranks = _ranks(tried.candidates(mask, questions, min(DEPTHS[-1], mask.count))[0], truth)  # [q, 10]
        for depth in DEPTHS:
            found = (ranks < depth).mean(axis=1)  # [q]
            recall, low = float(found.mean()), float(found.mean() - 1.645 * found.std() / math.sqrt(len(found)))
            reached = (Probing(nprobe, depth), round(recall, 4), round(low, 4))
            cost = _cost_ns(lists, scanned, depth)
            if low >= RECALL and (best is None or cost < best[0]):
                best = (cost, *reached)
        nprobe = max(nprobe + 1, round(nprobe * LADDER))
    return reached if best is None else best[1:]


def _ranks(positions: Int64Array, truth: Int64Array) -> Int64Array:
    """At which place among `positions` `[q, c]` each of `truth` `[q, 10]` stands; c where it does not."""
    same = positions[:, None, :] == truth[:, :, None]  # [q, 10, c]
    return np.asarray(np.where(same.any(axis=2), same.argmax(axis=2), positions.shape[1]), np.int64)


def _cost_ns(lists: int, scanned: float, depth: int) -> float:
    return lists * CENTROID_NS + scanned * SCAN_NS + depth * RANK_NS
