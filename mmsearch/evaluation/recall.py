"""Recall at k and the median rank, both ways, the measure every table of results is made of.

In: the search vectors of images and texts, and which text belongs to which image. Out: percentages and ranks.
numpy only, so that training, evaluation and tests share one truth. Next: `evaluate.py`, which feeds it vectors.

The protocol is that of Karpathy and Fei-Fei (2015, section 4.1, https://arxiv.org/abs/1412.2306): every caption queries
all images; every image queries all captions, and the best-ranked of its own counts. A search with a bank of queries
ranks by cosine less the items' hubness (`indexer/search/query_bank.py`); given that hubness, so does this, and what is
measured is what is searched with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.base.types import Float32Array, Modality
from indexer.search.query_bank import bank_of
from mmsearch.errors import DataError

FloatArray = NDArray[np.floating]
Int64Array = NDArray[np.int64]
Positives = Sequence[Sequence[int] | Int64Array] | Int64Array
_CHUNK_QUERIES = 1024  # scores of one chunk against 25,000 items: 200 MB in float64
_TIE = 1e-9  # cosines nearer than this are equal: equal vectors may differ in the last bits of a matrix product


@dataclass(frozen=True)
class Recall:
    """Percent of queries (0..100) with a right item among the first 1, 5, 10, and the median rank (1 is best)."""

    r1: float
    r5: float
    r10: float
    median_rank: float

    @classmethod
    def of(cls, ranks: Int64Array) -> Recall:
        """The summary of ranks of any shape, from 1 on."""
        r1, r5, r10 = (100 * float(np.mean(ranks <= k)) for k in (1, 5, 10))
        return cls(r1, r5, r10, float(np.median(ranks)))


@dataclass(frozen=True)
class Retrieval:
    """Recall in both directions over one set of images and their captions."""

    text_to_image: Recall
    image_to_text: Recall

    @property
    def ways(self) -> dict[str, Recall]:
        """Both, by name."""
        return {"text_to_image": self.text_to_image, "image_to_text": self.image_to_text}

    @property
    def columns(self) -> dict[str, float]:
        """The six recalls by the names that tables and curves give them, `t2i_r1` to `i2t_r10`."""
        ways = {"t2i": self.text_to_image, "i2t": self.image_to_text}
        return {f"{way}_r{k}": getattr(found, f"r{k}") for way, found in ways.items() for k in (1, 5, 10)}

    @property
    def mean_recall(self) -> float:
        """Mean of the six recalls, percent: the one number that picks the best epoch."""
        return float(np.mean(list(self.columns.values())))


def hubness_of(model: object, asked_by: Modality, items: FloatArray) -> Float32Array | None:
    """What a search by words or by a picture takes off the cosines of items of the other modality, float32 `[n]`.

    Args:
        model: whatever encodes; without a bank of queries its searches rank by cosine alone, and this is None.
        asked_by: modality of the queries. items: `[n, d]`, any length.
    """
    bank = bank_of(model, asked_by)
    return None if bank is None else bank.hubness(np.asarray(items, np.float32))


def recall(queries: FloatArray, items: FloatArray, positives: Positives, hubness: FloatArray | None = None) -> Recall:
    """Rank the items for every query and summarise the ranks.

    Args:
        queries: `[q, d]`, any length. items: `[n, d]`.
        positives: for each query the rows of its right items, at least one; the best-ranked of them counts.
        hubness: `[n]`, taken off every item's cosine, since a few items are near any query; None is cosine alone.

    Raises:
        DataError: nothing to rank, a query without a right item, shapes that do not fit, numbers that are not finite.
    """
    return Recall.of(best_ranks(queries, items, positives, hubness))


def retrieval(
    images: FloatArray,
    texts: FloatArray,
    image_of_text: Sequence[int] | Int64Array,
    image_hubness: FloatArray | None = None,
    text_hubness: FloatArray | None = None,
) -> Retrieval:
    """Both directions for images with one or several captions each.

    Args:
        images: `[n, d]`. texts: `[m, d]`. image_of_text: `[m]`, the row of the image each text describes.
        image_hubness: `[n]`, how near the images are to any text; corrects text to image.
        text_hubness: `[m]`, how near the texts are to any image; corrects image to text.
    """
    owner = np.asarray(image_of_text, dtype=np.int64)  # [m]
    if owner.shape != (len(texts),):
        raise DataError(f"{len(texts)} texts need one image row each; got {owner.shape}")
    captions: list[list[int]] = [[] for _ in range(len(images))]
    for text, image in enumerate(owner.tolist()):
        captions[image].append(text)
    return Retrieval(
        text_to_image=recall(texts, images, owner[:, None], image_hubness),
        image_to_text=recall(images, texts, captions, text_hubness),
    )


def best_ranks(
    queries: FloatArray, items: FloatArray, positives: Positives, hubness: FloatArray | None = None
) -> Int64Array:
    """Rank, from 1, of each query's best right item by cosine less hubness, int64 `[q]`; arguments as in `recall`.

    Ties count against us: a wrong item that scores as high stands before the right one; a collapsed model ranks last.
    """
    _check(queries, items, positives, hubness)
    unit_queries, unit_items = unit_rows(queries), unit_rows(items)
    taken_off = 0.0 if hubness is None else np.asarray(hubness, np.float64)
    ranks = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _CHUNK_QUERIES):
        scores = unit_queries[start : start + _CHUNK_QUERIES] @ unit_items.T  # [c, n]
        scores -= taken_off
        for row, row_scores in enumerate(scores):
            own = np.asarray(positives[start + row], dtype=np.int64)
            best = row_scores[own].max()
            row_scores[own] = -np.inf  # the others of its own never stand in its way
            ranks[start + row] = 1 + np.count_nonzero(row_scores >= best - _TIE)
    return ranks


def unit_rows(vectors: FloatArray) -> NDArray[np.float64]:
    """Rows of length one `[n, d]`; a zero vector stays, so that it keeps cosine 0 with everything."""
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths > 0, lengths, 1.0)


def _check(queries: FloatArray, items: FloatArray, positives: Positives, hubness: FloatArray | None) -> None:
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        raise DataError(f"queries {queries.shape} and items {items.shape} must be [q, d] and [n, d]")
    if len(queries) == 0 or len(positives) != len(queries):
        raise DataError(f"{len(queries)} queries with {len(positives)} lists of right items; need as many")
    if not (np.isfinite(queries).all() and np.isfinite(items).all()):
        raise DataError("vectors hold NaN or infinity; the model that made them has diverged")
    if hubness is not None and np.shape(hubness) != (len(items),):
        raise DataError(f"hubness {np.shape(hubness)} of {len(items)} items; give one number an item")
    if hubness is not None and not np.isfinite(hubness).all():
        raise DataError("hubness holds NaN or infinity; the bank of queries it is of is damaged, copy the model again")
    for query, own in enumerate(positives):
        if len(own) == 0:
            raise DataError(f"query {query} has no right item; leave it out of the measurement")
        if min(own) < 0 or max(own) >= len(items):
            raise DataError(f"query {query} names item {max(own)}, outside 0..{len(items) - 1}")
