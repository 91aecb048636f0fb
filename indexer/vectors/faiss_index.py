"""Search by FAISS: candidates from its index, their order from the rows at half precision.

Two forms. *Flat*: every row at half precision (`IndexScalarQuantizer`, QT_fp16), exact. *IVF with RaBitQ*: inverted
lists (Jégou, Douze & Schmid 2011, https://doi.org/10.1109/TPAMI.2010.57) of one bit a dimension (Gao & Long 2024,
https://arxiv.org/abs/2405.12497), `nprobe` lists scanned by SIMD; the best `depth` are ranked again by the rows, since
a bit a dimension says only roughly what is near. FAISS's ids are the positions of `Rows`.

Exact in any case: a search that allows at most `EXACT_ROWS` vectors, and up to `TAIL_ROWS` that came since the index
was made. More of them go into FAISS's index in memory, so that a search does not slow down. Next: `form.py`.
"""

from __future__ import annotations

import importlib
import io
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexer.base.errors import LibraryCorrupt
from indexer.base.hashed_file import hashed_file
from indexer.base.profile import cores
from indexer.base.types import Float32Array
from indexer.vectors.exact import ExactIndex, Mask
from indexer.vectors.protocol import ROUNDING, Candidates, falling, joined, normalised, ranked
from indexer.vectors.rows import Int64Array, Rows, pieces

TAIL_ROWS: Final = 4096  # some 0.3 ms in numpy
EXACT_ROWS: Final = 10_000  # a search among as few reads them all, which takes some 10 ms
SCANNED_SHARE: Final = 20  # more than one result in as many vectors: everything is scanned
DEEPER: Final = 3  # candidates ranked again for each result beyond the 10 that `depth` was measured for
DEPTH: Final = 10
HALF_ROUNDING: Final = 2 * 2.0**-11 + ROUNDING  # two products of unit vectors, each wrong by half a unit at the end
ROWS_AT_ONCE: Final = 65_536  # added to FAISS at once
IO_BYTES: Final = 1 << 20  # that FAISS writes or reads at once


@dataclass(frozen=True)
class Probing:
    """How many lists an IVF search looks at, and how many candidates are ranked again for 10 results."""

    nprobe: int
    depth: int


def load_faiss() -> Any:
    """FAISS, as whatever its build has: it takes 0.11 s to import, and its stubs differ between builds."""
    return importlib.import_module("faiss")


class FaissIndex:
    """`index` holds the first positions of `rows`; with `probing` it is an IVF one, else a flat one.

    A flat one is made in memory by the first search.
    """

    def __init__(self, rows: Rows, index: Any = None, probing: Probing | None = None) -> None:
        self.rows = rows
        self.exact = ExactIndex(rows)
        self.faiss = index
        self.probing = probing
        self._last: tuple[Mask, Any] | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(cls, content: bytes, rows: Rows, probing: Probing) -> FaissIndex:
        """The IVF index that `write` wrote, of all of `rows`. FAISS trusts what it reads: give it nothing else's.

        Raises: LibraryCorrupt.
        """
        faiss = load_faiss()
        try:
            index = faiss.read_index(faiss.PyCallbackIOReader(io.BytesIO(content).read, IO_BYTES))
        except RuntimeError as error:
            raise LibraryCorrupt(f"FAISS cannot read its index ({str(error).splitlines()[-1]})") from error
        if not hasattr(index, "nlist") or (index.d, index.ntotal) != (rows.dim, len(rows.ids)):
            raise LibraryCorrupt(
                f"FAISS's index holds {index.ntotal} vectors of {index.d}, not {len(rows.ids)} of {rows.dim}"
            )
        return cls(rows, index, probing)

    def write(self, path: Path) -> tuple[str, int]:
        """Write FAISS's index into a new file; its SHA-256 and its size in bytes. Raises: OSError, RuntimeError."""
        faiss = load_faiss()
        with hashed_file(path) as file:
            faiss.write_index(self.faiss, faiss.PyCallbackIOWriter(file.write, IO_BYTES))
        return file.checksum, file.size_bytes

    def search(self, queries: Float32Array, k: int, allowed: Int64Array | None = None) -> Candidates:
        """The `k` nearest, see `VectorIndex`."""
        mask = self.exact.mask(allowed)
        if k * SCANNED_SHARE > mask.count or (allowed is not None and mask.count <= EXACT_ROWS):
            return self.exact.search(queries, k, allowed)
        queries = normalised(queries, self.rows.dim)
        load_faiss().omp_set_num_threads(1 if len(queries) == 1 else cores())  # two share out one query in longer
        if self.probing is None or len(mask.passes) - self.faiss.ntotal > TAIL_ROWS:
            self.absorb()
        if self.probing is None:
            return ranked(queries, k, mask.count, self.rows, partial(self.candidates, mask), doubt=HALF_ROUNDING)
        spare = max(self.probing.depth, DEEPER * k) - k
        return ranked(queries, k, mask.count, self.rows, partial(self._near, mask, k), spare=spare, doubt=-np.inf)

    def absorb(self) -> FaissIndex:
        """Add to FAISS's index what came since it was made; itself."""
        with self._lock:
            if self.faiss is None:
                kind = load_faiss().ScalarQuantizer.QT_fp16
                self.faiss = load_faiss().IndexScalarQuantizer(self.rows.dim, kind, load_faiss().METRIC_INNER_PRODUCT)
            first = self.faiss.ntotal  # FAISS counts on from there: its ids are the positions
            for start, stop in pieces(len(self.rows.ids) - first, ROWS_AT_ONCE):
                self.faiss.add(normalised(self.rows.slice(first + start, first + stop), self.rows.dim))
        return self

    def candidates(self, mask: Mask, queries: Float32Array, count: int) -> Candidates:
        """FAISS's best `count`: for certain but for rounding from a flat index, about that by RaBitQ's estimate."""
        scores, positions = self.faiss.search(queries, count, params=self._parameters(mask))
        return positions, scores

    def _near(self, mask: Mask, k: int, queries: Float32Array, count: int) -> Candidates:
        """About the `count` best, and the best of the tail; at least `k` of each query."""
        found = self.candidates(mask, queries, count)
        if self.faiss.ntotal < len(mask.passes):
            found = falling(joined(found, self.exact.scan(mask, queries, k, start=self.faiss.ntotal)))
        short = (found[0] >= 0).sum(axis=1) < min(k, mask.count)
        return self.exact.scan(mask, queries, count) if short.any() else found

    def nprobe(self, mask: Mask) -> int:
        """How many lists an IVF search looks at: more where a filter lets less of each pass."""
        assert self.probing is not None
        return min(int(self.faiss.nlist), max(1, round(self.probing.nprobe / max(mask.share, 1e-6))))

    def _parameters(self, mask: Mask) -> Any:
        known = self._last
        if known is not None and known[0] is mask:
            return known[1]
        faiss, options = load_faiss(), {} if self.probing is None else {"nprobe": self.nprobe(mask)}
        bits = np.packbits(mask.passes, bitorder="little")
        if mask.count < len(mask.passes):
            options["sel"] = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        params = (faiss.SearchParameters if self.probing is None else faiss.SearchParametersIVF)(**options)
        params.kept = (options, bits)  # FAISS only points at them: they live as long as the search, whoever asks next
        self._last = (mask, params)
        return params
