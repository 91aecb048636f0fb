"""Search again and again on a CPU: what a flat file holds is kept in memory at half precision, half the bytes to read.

In: what `FileIndex` takes. Out: the same answers. A scan is as fast as memory is, so the copy, made when enough was
asked to repay it and beside the searches that go on, holds two bytes a number (FAISS's QT_fp16). Its scores only choose
candidates: `DOUBT` says how far they may be wrong, and `rank` takes the float32 rows of all that may belong among the
best, so that the answers are exact. What was added since is looked at beside it; many queries at once are a matrix
product, which the CPU does better on float32. Next: `choose.py`, which picks a backend.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Any, Final

import numpy as np

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import Float32Array
from indexer.vectors.base import ROUNDING, BoolArray, Fetch, Int64Array
from indexer.vectors.best import falling, merged
from indexer.vectors.file_index import FileIndex
from indexer.vectors.layout import IndexFile
from indexer.vectors.mirrors import load_faiss

AFTER: Final = 8  # searches that read the file: the copy costs as much as some thirty, most of it to import FAISS
FEWEST: Final = 16_384  # rows, below which reading them takes no time worth saving
MOST_BYTES: Final = 1 << 28  # of the copy; a file so large has lists instead
QUERIES: Final = 2  # at once; more are faster as a product of matrices
NARROW: Final = 4  # a filter that leaves one row in so many reads fewer bytes without the copy
DOUBT: Final = 2 * 2.0**-11 + ROUNDING  # of two unit vectors' products, each wrong by half a unit in the last place

log = logging.getLogger(__name__)


class HalfIndex(FileIndex):
    """A `FileIndex` with a copy of its file's rows at half precision, where that is flat."""

    def __init__(self, dim: int, file: IndexFile | None = None) -> None:
        super().__init__(dim, file)
        self._searched = 0
        self._half: Any = None
        self._maker: threading.Thread | None = None

    def _fetcher(
        self, asked: int, k: int, available: int, filtered: bool, mask: BoolArray | None
    ) -> tuple[Fetch, float]:
        """From the copy where it serves; from the file for the rest."""
        fetch, doubt = super()._fetcher(asked, k, available, filtered, mask)
        if asked > QUERIES or not self._could_hold() or available * NARROW < len(self._all_ids()):
            return fetch, doubt
        self._searched += 1
        if self._maker is None and self._searched > AFTER:
            self._maker = self._begin()
        return (partial(self._look, mask), DOUBT) if self._half is not None else (fetch, doubt)

    def _could_hold(self) -> bool:
        file = self._file
        if file is None or file.centroids is not None or file.scale is not None:
            return False
        return file.count >= FEWEST and 2 * file.count * file.dim <= MOST_BYTES

    def _begin(self) -> threading.Thread:
        maker = threading.Thread(target=self._hold, name="half-precision")  # waited for at the end: it takes a moment
        maker.start()
        return maker

    def _hold(self) -> None:
        """Make the copy; without one, searches read the file as before and say what is wrong with it."""
        try:
            faiss, file = load_faiss(), self._file
            assert file is not None
            half = faiss.IndexScalarQuantizer(self.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
            for number in range(len(file.sizes)):
                half.add(file.rows(number))  # compared with its sum, as every row that is read
            self._half = half
            log.info("%d vectors are kept in memory, %.0f MiB", file.count, 2 * file.count * self.dim / (1 << 20))
        except (LibraryCorrupt, OSError, ImportError, RuntimeError, MemoryError) as error:
            log.info("the vectors are not kept in memory: %s", error)

    def _look(self, mask: BoolArray | None, part: Float32Array, count: int) -> tuple[Int64Array, Float32Array]:
        """The `count` best of the copy and of what came since: positions and scores `[m, count]`, falling."""
        covered = len(self._dead)
        within = None if mask is None else mask[:covered]
        inside = covered if within is None else int(np.count_nonzero(within))
        found = []
        if inside:
            faiss, options = load_faiss(), {}
            if within is not None:
                bits = np.packbits(within, bitorder="little")
                selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
                options["params"] = faiss.SearchParameters(sel=selector)
            scores, positions = self._half.search(part, min(count, inside), **options)
            found.append((positions, scores))
        if self._tail:
            found.append(self._scan(mask, part, count, covered))
        return falling(*merged(found, count))
