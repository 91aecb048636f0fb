"""What searches on a CPU: a file of vectors, what was added since in memory, what was removed crossed out.

In: vectors under ids. Out: the nearest. A file of one list is searched whole, and exactly. A file of many is searched
in the `probes` lists whose centroids are nearest to the query: an inverted file (Jégou, Douze & Schmid 2011, section
4); whether all of the nearest were met is measured when the file is written (`lists.py`). Exact in any case: what was
added since, and searches that allow at most `EXACT_ROWS` vectors. Beyond `CODED_BYTES` of float32, rows are a byte a
dimension (`codes.py`), in memory as in the file, and whoever searches brings the originals by which the best are ranked
again; without them, scores are those of the bytes. Next: `lists.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from indexer.base.types import Float32Array
from indexer.vectors.base import ROUNDING, BoolArray, Fetch, Int64Array, Originals, checked_ids, normalised, rank
from indexer.vectors.best import best_so_far, by_list, falling, largest, merged, products, shared_out
from indexer.vectors.codes import CODED_BYTES, SPARE, Scale
from indexer.vectors.layout import FLAT_ROWS, IndexFile, Stored
from indexer.vectors.lists import Lists, assign, everything
from indexer.vectors.writer import write_flat, write_lists

EXACT_ROWS: Final = 100_000  # a search among so few is exact: it takes some 20 ms
TAIL_ROWS: Final = 65_536  # a block of the tail
SLAB: Final = 1 << 22  # scores held at once
PROBES_PER_QUERY_TO_SCAN: Final = 4  # more than 1 / 4 of all lists: then all of them


class FileIndex:
    """Positions count through the file's lists, then through the blocks of the tail."""

    suffix = ".faiss"

    def __init__(self, dim: int, file: IndexFile | None = None) -> None:
        self.dim = dim
        self._file = file
        self._dead: BoolArray = np.zeros(file.count if file else 0, np.bool_)  # [positions in the file]
        self._tail: list[tuple[Int64Array, Stored]] = []
        self._scale = file.scale if file else None  # what bytes stand for, in the file and in the tail
        self._ids: Int64Array | None = None
        self._order: Int64Array | None = None  # positions that hold a vector, by rising id
        self._lists: tuple[Int64Array, Int64Array] | None = None
        self._greatest = -1  # no id in the tail is above
        self._mask_of: tuple[Int64Array, BoolArray] | None = None

    def __len__(self) -> int:
        return len(self._dead) - int(np.count_nonzero(self._dead)) + sum(len(ids) for ids, _ in self._tail)

    @property
    def file(self) -> IndexFile | None:
        """What lies below the changes."""
        return self._file

    @property
    def is_coded(self) -> bool:
        """Whether rows are bytes here, or will be in the next file."""
        return self._scale is not None or 4 * len(self) * self.dim > CODED_BYTES

    def ids(self) -> Int64Array:
        """The ids, int64 `[n]`, in stored order."""
        ids = self._all_ids()
        return ids[self._alive()] if self._dead.any() else ids

    def add(self, ids: Int64Array, vectors: Float32Array) -> None:
        """Add or replace, see `VectorIndex`."""
        vectors = normalised(vectors, self.dim)
        ids = checked_ids(ids, len(vectors))
        if not len(ids):
            return
        if self._file is not None or ids.min() <= self._greatest:
            self.remove(ids)
        self._greatest = max(self._greatest, int(ids.max()))
        if self._tail and len(self._tail[-1][0]) + len(ids) <= TAIL_ROWS and self._tail[-1][1].dtype == np.float32:
            last_ids, last = self._tail.pop()
            ids, vectors = np.concatenate([last_ids, ids]), np.concatenate([last, vectors])
        elif sum(rows.nbytes for _, rows in self._tail if rows.dtype == np.float32) > CODED_BYTES:
            self._encode_tail()
        self._tail.append((ids, vectors))
        self._changed()

    def remove(self, ids: Int64Array) -> int:
        """Take ids out, see `VectorIndex`."""
        before = len(self)
        if not before or not len(ids):
            return 0
        positions = self._positions(ids)
        in_file = positions[positions < len(self._dead)]
        self._dead[in_file] = True
        if len(in_file) < len(positions):
            blocks = ((kept, block, ~np.isin(kept, ids)) for kept, block in self._tail)
            self._tail = [(kept[keep], block[keep]) for kept, block, keep in blocks if keep.any()]
        if len(positions):
            self._changed()
        return before - len(self)

    def search(
        self,
        queries: Float32Array,
        k: int,
        allowed: Int64Array | None = None,
        originals: Originals | None = None,
    ) -> tuple[Int64Array, Float32Array]:
        """The `k` nearest, see `VectorIndex`; ranked by `originals` where rows are bytes."""
        queries = normalised(queries, self.dim)
        mask = self._mask(allowed)
        available = len(self) if mask is None else int(np.count_nonzero(mask))
        fetch, doubt = self._fetcher(len(queries), k, available, allowed is not None, mask)
        return self._ranked(queries, k, available, self._all_ids(), fetch, doubt, originals)

    def _fetcher(
        self, asked: int, k: int, available: int, filtered: bool, mask: BoolArray | None
    ) -> tuple[Fetch, float]:
        """How the candidates of `asked` queries are found, and by how much their scores are to be doubted."""
        fetch = self._scan if self._is_exact(k, available, filtered) else self._probe
        return partial(fetch, mask), ROUNDING

    def search_exactly(
        self, queries: Float32Array, k: int, allowed: Int64Array | None, originals: Originals | None = None
    ) -> Int64Array:
        """The positions of the true `k` nearest, `[m, k]`, for measuring; `k` or more must be allowed."""
        queries, mask = normalised(queries, self.dim), self._mask(allowed)
        available = len(self) if mask is None else int(np.count_nonzero(mask))
        places = np.arange(len(self._all_ids()))
        return self._ranked(queries, k, available, places, partial(self._scan, mask), ROUNDING, originals)[0]

    def _ranked(
        self,
        queries: Float32Array,
        k: int,
        available: int,
        names: Int64Array,
        fetch: Fetch,
        doubt: float,
        originals: Originals | None,
    ) -> tuple[Int64Array, Float32Array]:
        if self._scale is None or originals is None:
            return rank(queries, k, available, names, self.gather, fetch, doubt=doubt)
        ids, source = self._all_ids(), originals

        def gather(positions: Int64Array) -> Float32Array:
            wanted, back = np.unique(positions, return_inverse=True)
            return normalised(source(ids[wanted]), self.dim)[back.reshape(positions.shape)]

        doubt = max(doubt, self._scale.doubt(queries))
        return rank(queries, k, available, names, gather, fetch, spare=SPARE, doubt=doubt)

    def gather(self, positions: Int64Array) -> Float32Array:
        """The vectors at positions of any shape `[...]`, float32 `[..., d]`; of bytes what they stand for."""
        wanted, back = np.unique(positions, return_inverse=True)
        parts = [np.empty((0, self.dim), np.float32), *self._parts(wanted, self._decoded)]
        return np.concatenate(parts)[back.reshape(positions.shape)]

    def _parts(self, wanted: Int64Array, convert: Callable[[Stored], Stored]) -> list[Stored]:
        """The rows at rising positions `[n]`, as `convert` makes them, list by list."""
        first, _ = self._layout()
        numbers = np.searchsorted(first, wanted, side="right") - 1
        parts = []
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        for group in np.split(np.arange(len(wanted)), cuts) if len(wanted) else []:
            number = int(numbers[group[0]])
            parts.append(convert(self._some_rows(number, wanted[group] - first[number])))
        return parts

    def _decoded(self, rows: Stored) -> Float32Array:
        return self._scale.decode(rows) if self._scale is not None and rows.dtype == np.uint8 else rows

    def _scores(self, queries: Float32Array, rows: Stored) -> Float32Array:
        """Inner products `[m, n]`, of bytes what they come to."""
        if self._scale is not None and rows.dtype == np.uint8:
            return self._scale.scores(queries, rows)
        return products(queries, rows)

    def _encode_tail(self) -> None:
        """Bytes in place of float32 for what memory should not hold at four times the size."""
        if self._scale is None:
            self._scale = Scale.fitted([rows for _, rows in self._tail])
        self._tail = [(ids, _encoded(rows, self._scale)) for ids, rows in self._tail]

    def vectors(self) -> Float32Array:
        """All unit vectors, float32 `[n, d]`, in stored order: a copy."""
        return self.gather(self.alive())

    def vectors_of(self, ids: Int64Array) -> Float32Array:
        """The unit vectors of those ids that are in, in the order of `ids`, float32 `[n, d]`."""
        return self.gather(self._positions(ids))

    def list_of(self) -> Int64Array:
        """The list each position of the file is in, int64 `[n]`."""
        return np.repeat(np.arange(len(self._file.sizes)), self._file.sizes) if self._file else np.empty(0, np.int64)

    def alive(self) -> Int64Array:
        """Positions that hold a vector, rising."""
        return np.flatnonzero(self._alive())

    def save(self, path: Path, lists: Lists | None = None) -> None:
        """Write everything as one file, in `lists` where they are given, see `VectorIndex`."""
        ids, alive = self._all_ids(), self.alive()
        if lists is None and self.is_coded:
            lists = everything(self)
        if lists is None:
            parts = (self.gather(alive[start : start + FLAT_ROWS]) for start in range(0, len(alive), FLAT_ROWS))
            write_flat(path, self.dim, ids[alive], parts)
            return
        scale = self._scale_of_next_file(alive)
        numbers = assign(self, lists.centroids)  # [n]
        order = np.argsort(numbers, kind="stable")
        sizes = np.bincount(numbers, minlength=len(lists.centroids)).astype(np.int64)
        ends = np.cumsum(sizes)
        chosen = (alive[order[end - size : end]] for end, size in zip(ends, sizes, strict=True))
        filled = ((ids[part], self._stored(part, scale)) for part in chosen)
        write_lists(path, lists.centroids, sizes, lists.probes, filled, lists.facts, scale)

    def _scale_of_next_file(self, alive: Int64Array) -> Scale | None:
        if self._scale is not None or not self.is_coded:
            return self._scale
        starts = range(0, len(alive), FLAT_ROWS)
        return Scale.fitted(self.gather(alive[start : start + FLAT_ROWS]) for start in starts)

    def _stored(self, positions: Int64Array, scale: Scale | None) -> Stored:
        """The rows at rising positions `[n]`, as a file with this `scale` has them."""
        if scale is None:
            return self.gather(positions)
        parts = self._parts(positions, partial(_encoded, scale=scale))
        return np.concatenate([np.empty((0, self.dim), np.uint8), *parts])

    @classmethod
    def load(cls, path: Path) -> FileIndex:
        """Open what `save` wrote. Raises: LibraryCorrupt."""
        file = IndexFile.open(path)
        return cls(file.dim, file)

    def _is_exact(self, k: int, available: int, filtered: bool) -> bool:
        file = self._file
        if file is None or file.centroids is None or self._is_small(k, available, filtered):
            return True
        return file.probes * PROBES_PER_QUERY_TO_SCAN >= len(file.sizes)

    @staticmethod
    def _is_small(k: int, available: int, filtered: bool) -> bool:
        """Whether looking at everything allowed costs little, or so much is wanted that nothing less will do."""
        return (filtered and available <= EXACT_ROWS) or k * 20 > available

    def _scan(
        self, mask: BoolArray | None, part: Float32Array, count: int, start: int = 0
    ) -> tuple[Int64Array, Float32Array]:
        """The `count` best of everything from position `start` on: positions and scores `[m, count]`, falling."""
        firsts, sizes = self._layout()
        numbers = range(int(np.searchsorted(firsts + sizes, start, side="right")), len(sizes))
        parts = shared_out(numbers, self.dim * (4 if self._scale is None else 1) * (len(self._all_ids()) - start))
        look = partial(self._scan_lists, mask, part, count, start)
        if len(parts) == 1:
            return falling(*look(numbers))
        with ThreadPoolExecutor(len(parts)) as pool:
            return falling(*merged(list(pool.map(look, parts)), count))

    def _scan_lists(
        self, mask: BoolArray | None, part: Float32Array, count: int, start: int, numbers: range
    ) -> tuple[Int64Array, Float32Array]:
        """The `count` best of some lists, in no order."""
        best = (np.empty(0, np.int64), np.empty((len(part), 0), np.float32))
        positions, scores = np.broadcast_to(best[0], (len(part), 0)), best[1]
        pending: list[tuple[Int64Array, Float32Array]] = []
        held = 0
        firsts = self._layout()[0]
        for number in numbers:
            places, rows = self._passing(number, mask)
            before = int(np.searchsorted(places, start)) if firsts[number] < start else 0
            places, rows = places[before:], rows[before:]
            if not len(rows):
                continue
            pending.append((places, self._scores(part, rows)))  # [m, s]
            held += len(part) * len(rows)
            if held > SLAB:
                positions, scores, held = *best_so_far(positions, scores, pending, count), 0
                pending = []
        return best_so_far(positions, scores, pending, count)

    def _probe(self, mask: BoolArray | None, part: Float32Array, count: int) -> tuple[Int64Array, Float32Array]:
        """The `count` best of the nearest lists and the tail; of everything, where those hold fewer."""
        assert self._file is not None
        centroids = self._file.centroids
        assert centroids is not None
        nearest = largest(part @ centroids.T, self._probes(mask))  # [m, p]
        found: list[list[tuple[Int64Array, Float32Array]]] = [[] for _ in part]
        for number, askers in by_list(nearest, range(len(centroids), len(centroids) + len(self._tail))):
            places, rows = self._passing(number, mask)
            if len(rows):
                scores = self._scores(part[askers], rows)  # [askers, s]
                for asker, row in zip(askers, scores, strict=True):
                    found[asker].append((places, row))
        if any(sum(len(places) for places, _ in lists) < count for lists in found):
            return self._scan(mask, part, count)
        positions, best = np.empty((len(part), count), np.int64), np.empty((len(part), count), np.float32)
        for row, lists in enumerate(found):
            places = np.concatenate([places for places, _ in lists])
            scores = np.concatenate([some for _, some in lists])
            chosen = np.argpartition(-scores, count - 1)[:count]
            positions[row], best[row] = places[chosen], scores[chosen]
        return falling(positions, best)

    def _probes(self, mask: BoolArray | None) -> int:
        """More lists where fewer of their vectors are allowed, so that as many are looked at."""
        assert self._file is not None
        lists = len(self._file.sizes)
        share = 1.0 if mask is None else max(np.count_nonzero(mask) / len(mask), 1e-6)
        return max(1, min(lists, round(self._file.probes / share)))

    def _passing(self, number: int, mask: BoolArray | None) -> tuple[Int64Array, Stored]:
        """Positions and rows of one list, without what the mask holds back."""
        firsts, sizes = self._layout()
        first, size = int(firsts[number]), int(sizes[number])
        if mask is None:
            return np.arange(first, first + size), self._rows(number)
        places = np.flatnonzero(mask[first : first + size])
        if len(places) == size:
            return places + first, self._rows(number)
        few = 4 * len(places) < size
        return places + first, self._some_rows(number, places) if few else self._rows(number)[places]

    def _layout(self) -> tuple[Int64Array, Int64Array]:
        """First position and size of every list: those of the file, then the blocks of the tail."""
        if self._lists is None:
            sizes = np.array([len(ids) for ids, _ in self._tail], np.int64)
            if self._file is not None:
                sizes = np.concatenate([self._file.sizes, sizes])
            self._lists = (np.cumsum(sizes) - sizes, sizes)
        return self._lists

    def _rows(self, number: int) -> Stored:
        in_file = 0 if self._file is None else len(self._file.sizes)
        return self._tail[number - in_file][1] if self._file is None or number >= in_file else self._file.stored(number)

    def _some_rows(self, number: int, places: Int64Array) -> Stored:
        if self._file is None or number >= len(self._file.sizes):
            return self._rows(number)[places]
        return self._file.some_stored(number, places)

    def _all_ids(self) -> Int64Array:
        """The id at each position, also of what was removed."""
        if self._ids is None:
            in_file = self._file.ids() if self._file else np.empty(0, np.int64)
            self._ids = np.concatenate([in_file, *(ids for ids, _ in self._tail)])
        return self._ids

    def _alive(self) -> BoolArray:
        alive = np.ones(len(self._all_ids()), np.bool_)
        alive[: len(self._dead)] = ~self._dead
        return alive

    def _positions(self, ids: Int64Array) -> Int64Array:
        """The positions of those ids that are in."""
        if self._order is None:
            alive = self.alive()
            held = self._all_ids()[alive]
            self._order = alive if bool((held[1:] > held[:-1]).all()) else alive[np.argsort(held)]
        if not len(self._order):
            return np.empty(0, np.int64)
        held = self._all_ids()[self._order]
        places = np.minimum(np.searchsorted(held, ids), len(held) - 1)
        found: Int64Array = self._order[places[held[places] == ids]]
        return found

    def _mask(self, allowed: Int64Array | None) -> BoolArray | None:
        """Which positions may be found; None for all. The last one is kept: most searches have the same filter."""
        if allowed is None:
            return self._alive() if self._dead.any() else None
        if self._mask_of is None or self._mask_of[0] is not allowed:
            mask = np.zeros(len(self._all_ids()), np.bool_)
            mask[self._positions(allowed)] = True
            if allowed.flags.writeable:  # its owner may change it before the next search
                return mask
            self._mask_of = (allowed, mask)
        return self._mask_of[1]

    def _changed(self) -> None:
        self._ids = self._order = self._mask_of = self._lists = None


def _encoded(rows: Stored, scale: Scale) -> Stored:
    return rows if rows.dtype == np.uint8 else scale.encode(rows)
