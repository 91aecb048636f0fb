"""The index in memory, made from the catalog or brought up to date from it.

In: rows of `vectors`. Out: `LiveIndex`: a `VectorIndex`, the kind of each vector, and the last change it includes. An
index that replayed changes equals one built anew: both read the same float16 rows. Next: `generations.py`, its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexer.base.types import CAPTION, HIDDEN, IMAGE, TEXT, Float32Array, Modality, Model
from indexer.catalog.reader import last_change, pages, read_by_ids
from indexer.search.query_bank import QueryBank
from indexer.vectors.base import Int64Array, Originals, VectorIndex
from indexer.vectors.choose import Device, new_index
from indexer.vectors.file_index import FileIndex

ROWS_AT_ONCE = 8192

SEARCHED: Final[dict[Modality | None, tuple[int, ...]]] = {
    None: (IMAGE, TEXT),  # a caption is represented by its photo
    "image": (IMAGE,),
    "text": (TEXT, CAPTION),
}

DEEPER: Final = 64  # of 9,192 photos R@10 is 46.5 with these as with all, 43.2 by cosine (tests/bench/hubs.py)


class LiveIndex:
    """`ids` int64 `[n]` rising, `kinds` uint8 `[n]`; `index` holds the same ids."""

    def __init__(
        self, model: Model, index: VectorIndex, ids: Int64Array, kinds: NDArray[np.uint8], change: int
    ) -> None:
        self.model = model
        self.index = index
        self.ids = ids
        self.kinds = kinds
        self.change = change
        self._filters: dict[tuple[Modality | None, bytes], Int64Array | None] = {}

    def nearest(
        self,
        queries: Float32Array,
        k: int,
        within: Modality | None,
        hidden: Int64Array,
        among: Int64Array | None = None,
        originals: Originals | None = None,
        bank: QueryBank | None = None,
    ) -> list[tuple[Int64Array, Float32Array]]:
        """Queries `[m, d]` -> for each ids and scores `[k']`, `k' <= k`, of `within`, without `hidden`.

        `among` are the ids that may be found, None for all; `originals` ranks what an index of bytes has found, see
        `means_of`. Scores are cosines; with a `bank`, which needs `originals`, less the hubness of what is of the
        other modality, and the best are chosen among the nearest `k + DEEPER`.
        """
        depth = k if bank is None else k + DEEPER
        allowed = self._allowed(within, hidden)
        if among is not None:
            allowed = np.intersect1d(self.ids if allowed is None else allowed, among, assume_unique=True)
        if isinstance(self.index, FileIndex):
            ids, scores = self.index.search(queries, depth, allowed, originals)
        else:
            ids, scores = self.index.search(queries, depth, allowed)
        found = [(some[some >= 0], cosines[some >= 0]) for some, cosines in zip(ids, scores, strict=True)]
        if bank is None or not found:
            return found
        assert originals is not None
        return self._ranked(found, k, bank, originals)

    def _ranked(
        self, found: Sequence[tuple[Int64Array, Float32Array]], k: int, bank: QueryBank, originals: Originals
    ) -> list[tuple[Int64Array, Float32Array]]:
        """The best `k` of each, by cosine less hubness, equal ones by rising id."""
        every = np.unique(np.concatenate([ids for ids, _ in found]))  # [u]
        corrected = SEARCHED["image" if bank.modality == "text" else "text"]
        other = np.isin(self.kinds[np.searchsorted(self.ids, every)], corrected)
        hubness = np.zeros(len(every), np.float32)
        vectors = originals
        if isinstance(self.index, FileIndex) and not self.index.is_coded:
            vectors = self.index.vectors_of  # the same ones, which the catalog takes longer to tell
        hubness[other] = bank.hubness(vectors(every[other]))
        ranked = []
        for ids, cosines in found:
            scores = cosines - hubness[np.searchsorted(every, ids)]
            order = np.lexsort((ids, -scores))[:k]
            ranked.append((ids[order], scores[order]))
        return ranked

    def replay(self, connection: Any) -> int:
        """Apply every change since; the number of rows read."""
        newest = last_change(connection)
        if newest == self.change:
            return 0
        query = "SELECT id, kind, mu FROM vectors WHERE model_id = :model AND change > :change"
        count = 0
        for rows in pages(connection, query, ROWS_AT_ONCE, model=self.model.id, change=self.change):
            self._apply(rows)
            count += len(rows)
        self.change = newest
        self._filters.clear()
        return count

    def _allowed(self, within: Modality | None, hidden: Int64Array) -> Int64Array | None:
        """The ids that may be found, None for all; the same array for the same question, which an index remembers."""
        key = (within, hidden.tobytes())
        if key not in self._filters:
            passes = np.isin(self.kinds, SEARCHED[within])
            if len(hidden):
                passes &= ~np.isin(self.ids, hidden)
            allowed = None if passes.all() else self.ids[passes]
            if allowed is not None:
                allowed.setflags(write=False)
            self._filters = {key: allowed} if len(hidden) else {**self._filters, key: allowed}
        return self._filters[key]

    def _apply(self, rows: Sequence[Any]) -> None:
        ids = np.array([row[0] for row in rows], np.int64)
        kinds = np.array([row[1] for row in rows], np.uint8)
        shown = kinds != HIDDEN
        self.index.remove(ids[~shown])
        if shown.any():
            means = _matrix((mu for _, kind, mu in rows if kind != HIDDEN), self.model.dim)
            self.index.add(ids[shown], means)
        kept = ~np.isin(self.ids, ids)
        merged = np.concatenate([self.ids[kept], ids[shown]])
        order = np.argsort(merged)
        self.ids, self.kinds = merged[order], np.concatenate([self.kinds[kept], kinds[shown]])[order]


def from_catalog(connection: Any, model: Model, device: Device) -> LiveIndex:
    """The index of `model`'s vectors, out of the catalog alone."""
    index = new_index(model.dim, device)
    query = "SELECT id, kind, mu FROM vectors WHERE model_id = :model AND kind <> :hidden ORDER BY id"
    all_ids: list[Int64Array] = [np.empty(0, np.int64)]
    all_kinds: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)]
    for rows in pages(connection, query, ROWS_AT_ONCE, model=model.id, hidden=HIDDEN):
        all_ids.append(np.array([row[0] for row in rows], np.int64))
        all_kinds.append(np.array([row[1] for row in rows], np.uint8))
        index.add(all_ids[-1], _matrix((row[2] for row in rows), model.dim))
    return LiveIndex(model, index, np.concatenate(all_ids), np.concatenate(all_kinds), last_change(connection))


def means_of(connection: Any, model: Model, ids: Int64Array) -> Float32Array:
    """The means of some vectors as the catalog has them now, `[n, d]`; zeros for one that is not there any more."""
    means = np.zeros((len(ids), model.dim), np.float32)
    places = {one: place for place, one in enumerate(ids.tolist())}
    for one, mu in read_by_ids(connection, "SELECT id, mu FROM vectors WHERE id IN ({ids})", list(places)):
        if mu is not None and len(mu) == 2 * model.dim:
            means[places[one]] = np.frombuffer(mu, np.float16)
    return means


def _matrix(blobs: Iterable[bytes], dim: int) -> Float32Array:
    return np.frombuffer(b"".join(blobs), np.float16).reshape(-1, dim).astype(np.float32)  # [n, d]
