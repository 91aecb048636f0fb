"""The index in memory, made from the catalog or brought up to date from it.

In: rows of `vectors`. Out: `LiveIndex`: a `VectorIndex`, the kind of each vector, and the last change it includes. An
index that replayed changes equals one built anew: both read the same float16 rows. Next: `index_files.py`, its files.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import (
    CAPTION,
    EXACT_SEARCH,
    HIDDEN,
    IMAGE,
    TEXT,
    Float32Array,
    IndexFacts,
    Modality,
    Model,
    UInt8Array,
)
from indexer.catalog import changes
from indexer.catalog.reader import last_change
from indexer.search.query_bank import QueryBank
from indexer.vectors.choose import Device, index_over
from indexer.vectors.protocol import VectorIndex
from indexer.vectors.rows import Float16Array, Int64Array, Rows, pieces

if TYPE_CHECKING:
    from indexer.catalog.reader import Snapshot

SEARCHED: Final[dict[Modality | None, tuple[int, ...]]] = {
    None: (IMAGE, TEXT),  # a caption is represented by its photo
    "image": (IMAGE,),
    "text": (TEXT, CAPTION),
}

DEEPER: Final = 64  # of 9,192 photos R@10 is 46.5 with these as with all, 43.2 by cosine (tests/bench/hubs.py)
IN_MEMORY_BYTES: Final = 1 << 28  # of vectors read from the catalog
FEW_HIDDEN: Final = 64  # ids: as many more results are asked for, and they are passed over; no filter is made for them


class LiveIndex:
    """`ids` int64 `[n]` rising, `kinds` uint8 `[n]`; `index` holds the same ids."""

    def __init__(
        self,
        model: Model,
        index: VectorIndex,
        ids: Int64Array,
        kinds: UInt8Array,
        change: int,
        facts: IndexFacts = EXACT_SEARCH,
    ) -> None:
        self.model = model
        self.index = index
        self.ids = ids
        self.kinds = kinds
        self.change = change
        self.facts = facts  # of the files below
        self.damage: str | None = None  # of its file, when a check in the background finds it
        self._filters: dict[tuple[Modality | None, bytes], Int64Array | None] = {}

    def nearest(
        self,
        queries: Float32Array,
        k: int,
        within: Modality | None,
        hidden: Int64Array,
        among: Int64Array | None = None,
        bank: QueryBank | None = None,
    ) -> list[tuple[Int64Array, Float32Array]]:
        """Queries `[m, d]` -> for each ids and scores `[k']`, `k' <= k`, of `within`, without `hidden`.

        `among` are the ids that may be found, None for all. Scores are cosines; with a `bank` less the hubness of what
        is of the other modality, and the best are chosen among the nearest `k + DEEPER`. Raises: LibraryCorrupt.
        """
        if self.damage is not None:
            raise LibraryCorrupt(self.damage)
        depth = min(k if bank is None else k + DEEPER, len(self.ids))
        few = len(hidden) <= FEW_HIDDEN
        allowed = self._allowed(within, hidden[:0] if few else hidden)
        if among is not None:
            allowed = np.intersect1d(self.ids if allowed is None else allowed, among, assume_unique=True)
        ids, scores = self.index.search(queries, depth + (len(hidden) if few else 0), allowed)
        keep = (ids >= 0) & ~np.isin(ids, hidden) if few and len(hidden) else ids >= 0
        rows = zip(ids, scores, keep, strict=True)
        found = [(some[kept][:depth], cosines[kept][:depth]) for some, cosines, kept in rows]
        return found if bank is None or not found else self._ranked(found, k, bank)

    def _ranked(
        self, found: Sequence[tuple[Int64Array, Float32Array]], k: int, bank: QueryBank
    ) -> list[tuple[Int64Array, Float32Array]]:
        """The best `k` of each, by cosine less hubness, equal ones by rising id."""
        every = np.sort(np.concatenate([ids for ids, _ in found]))
        every = every[np.append(np.diff(every) > 0, True)] if len(every) else every  # [u]; `unique` imports numpy.ma
        corrected = SEARCHED["image" if bank.modality == "text" else "text"]
        other = np.isin(self.kinds[np.searchsorted(self.ids, every)], corrected)
        hubness = np.zeros(len(every), np.float32)
        hubness[other] = bank.hubness(self.index.rows.vectors_of(every[other]).astype(np.float32))
        ranked = []
        for ids, cosines in found:
            scores = cosines - hubness[np.searchsorted(every, ids)]
            order = np.lexsort((ids, -scores))[:k]
            ranked.append((ids[order], scores[order]))
        return ranked

    def replay(self, snapshot: Snapshot) -> int:
        """Apply every change since; the number of rows read."""
        newest = last_change(snapshot)
        if newest == self.change:
            return 0
        count = 0
        for page in changes.since(snapshot, self.model, self.change):
            self._apply(page)
            count += len(page.ids)
        self.change = newest
        self._filters.clear()
        return count

    def parts(self) -> Iterator[Float16Array]:
        """The vectors by rising id, float16 `[n, d]`, piece by piece."""
        positions = self.index.rows.positions(self.ids)
        for start, stop in pieces(len(positions)):
            yield self.index.rows.take(positions[start:stop])

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

    def _apply(self, page: changes.Page) -> None:
        shown = page.kinds != HIDDEN
        self.index.rows.remove(page.ids[~shown])
        self.index.rows.add(page.ids[shown], page.means)
        kept = ~np.isin(self.ids, page.ids)
        ids = np.concatenate([self.ids[kept], page.ids[shown]])
        order = np.argsort(ids)
        self.ids, self.kinds = ids[order], np.concatenate([self.kinds[kept], page.kinds[shown]])[order]


def from_catalog(snapshot: Snapshot, model: Model, device: Device) -> LiveIndex:
    """The index of `model`'s vectors, out of the catalog alone; many of them lie in a temporary file meanwhile."""
    ids: list[Int64Array] = [np.empty(0, np.int64)]
    kinds: list[UInt8Array] = [np.empty(0, np.uint8)]
    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as spool:
        for page in changes.everything(snapshot, model):
            ids.append(page.ids)
            kinds.append(page.kinds)
            spool.write(page.means.data)
        every = np.concatenate(ids)
        matrix = _matrix(spool, (len(every), model.dim))
    index = index_over(Rows(model.dim, every, matrix), device)
    return LiveIndex(model, index, every, np.concatenate(kinds), last_change(snapshot))


def _matrix(spool: tempfile.SpooledTemporaryFile[bytes], shape: tuple[int, int]) -> Float16Array:
    """What was written, float16 of that shape; mapped where it is much, so that it goes with the last who uses it."""
    size = spool.tell()
    spool.seek(0)
    if size <= IN_MEMORY_BYTES:
        return np.frombuffer(spool.read(), np.float16).reshape(shape)
    return np.frombuffer(mmap.mmap(spool.fileno(), size, access=mmap.ACCESS_READ), np.float16).reshape(shape)
