"""Index files as they are read: FAISS's own format, read piece by piece without FAISS, with a trailer of our own.

In: a file that `writer.py` wrote and `faiss.read_index` reads too: an `IndexFlatIP` under an `IndexIDMap2`, an
`IndexIVFFlat`, or, of a byte a dimension, an `IndexIVFScalarQuantizer`. Out: `IndexFile`, the file held open: a search
reads the lists it needs and no others, into aligned memory that is used again. Not a memory map: its faults cost more
than reading, and a file cut short would end the process. The trailer holds a 64-bit sum of the rows of each list,
compared when the list is first read: hashing a whole file at every start would cost more than the search. A sum finds
every flipped bit and every hole; what was forged on purpose it does not. Next: `writer.py`, the other way.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import Float32Array
from indexer.vectors.base import Int64Array
from indexer.vectors.codes import Scale

HEADER: Final = struct.Struct("<4siqqqBi")  # kind, d, n, two unused, trained, metric
METRIC_INNER_PRODUCT: Final = 0
SCALE: Final = struct.Struct("<iifQQQ")  # QT_8bit, how its range was found (two fields), d, bytes a row, 2 d numbers
FOOTER: Final = struct.Struct("<IIQ8s")  # bytes of facts, crc32 of sums and facts, bytes of the FAISS index, MAGIC
MAGIC: Final = b"mmsearch"
FLAT_ROWS: Final = 2048  # a file of one list is cut into pieces of so many vectors
FEW_ROWS: Final = 64  # so many are read one by one, more with their whole list

Stored = NDArray[Any]  # rows as a file has them: float32 `[n, d]`, or uint8 `[n, d]`


class IndexFile:
    """One file, held open. Threads may share it: what `rows` gives is the asking thread's own, until it asks again.

    Attributes:
        dim, count: d and n.
        centroids: float32 `[c, d]`, or None for a flat file, whose pieces of `FLAT_ROWS` are its lists here.
        probes: lists to look at by default.
        sizes: int64 `[c]`, vectors in each list. `first`: int64 `[c]`, position of each list's first vector.
        facts: what was measured when the file was written.
        scale: what the bytes of a file of codes stand for; None where the rows are float32.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dim = self.count = self.probes = 0
        self.centroids: Float32Array | None = None
        self.facts: dict[str, Any] = {}
        self.scale: Scale | None = None
        self._stream: Any = None
        self._lock = threading.Lock()
        self._sums: NDArray[np.uint64] | None = None
        self._crc: dict[str, int] = {}
        self._end = 0
        self._scratch = threading.local()  # `rows`: memory that each thread uses again

    @classmethod
    def open(cls, path: Path) -> IndexFile:
        """Open a file. Raises: LibraryCorrupt when it is none of ours; FileNotFoundError."""
        file = cls(path)
        try:
            file._stream = path.open("rb", buffering=0)
            file._read_trailer()
            file._read_index()
        except FileNotFoundError:
            raise
        except (OSError, ValueError, struct.error, IndexError, KeyError) as error:
            raise LibraryCorrupt(f"{path} is not an index file ({error})") from error
        return file

    @property
    def is_checked(self) -> bool:
        """Whether the file has sums, so that what is read of it is known to be what was written."""
        return self._sums is not None

    def rows(self, number: int) -> Float32Array:
        """The vectors of one list, float32 `[n, d]`, valid until the next call; of codes what they stand for.

        Raises: LibraryCorrupt.
        """
        stored = self.stored(number)
        return stored if self.scale is None else self.scale.decode(stored)

    def stored(self, number: int) -> Stored:
        """The rows of one list as they lie there, `[n, d]`, valid until the next call. Raises: LibraryCorrupt."""
        size = int(self.sizes[number])
        wanted = self._row_bytes * size
        scratch = getattr(self._scratch, "rows", None)
        if scratch is None or len(scratch) < wanted:  # fresh memory for each list would cost more than reading it
            scratch = self._scratch.rows = np.empty(wanted, np.uint8)
        buffer = scratch[:wanted]
        self._read_into(int(self._vectors_at[number]), buffer)
        self._check(number, buffer)
        return buffer.view(self._kind).reshape(size, self.dim)

    def some_stored(self, number: int, chosen: Int64Array) -> Stored:
        """Some rows of one list, by their places in it `[n]` -> `[n, d]`. Raises: LibraryCorrupt."""
        if len(chosen) > FEW_ROWS or not self._seen[number]:
            return self.stored(number)[chosen]
        starts = (int(self._vectors_at[number]) + chosen * self._row_bytes).tolist()
        if hasattr(os, "pread"):
            file, size = self._stream.fileno(), self._row_bytes
            data = b"".join([os.pread(file, size, start) for start in starts])
            if len(data) < size * len(starts):
                raise LibraryCorrupt(f"{self.path} ends before list {number} does; it has become shorter")
            return np.frombuffer(data, self._kind).reshape(-1, self.dim)
        found = np.empty((len(chosen), self.dim), self._kind)
        for row, start in zip(found, starts, strict=True):
            self._read_into(start, row.view(np.uint8))
        return found

    def ids(self) -> Int64Array:
        """All ids, int64 `[n]`, list after list. Raises: LibraryCorrupt."""
        data = self._bytes(self._ids_at, 8 * self.count)
        if self._sums is not None and zlib.crc32(data) != self._crc["ids"]:
            raise LibraryCorrupt(f"{self.path} has changed since it was written (its ids)")
        return np.frombuffer(data, "<i8").astype(np.int64)

    def verify(self) -> None:
        """Compare every sum now. Raises: LibraryCorrupt."""
        ids = self.ids()
        for number, (first, size) in enumerate(zip(self.first.tolist(), self.sizes.tolist(), strict=True)):
            self.stored(number)
            if self.centroids is not None:
                beside = self._bytes(int(self._vectors_at[number]) + self._row_bytes * size, 8 * size)
                if beside != ids[first : first + size].astype("<i8").tobytes():
                    raise LibraryCorrupt(f"{self.path} has changed since it was written (the ids of list {number})")

    @property
    def _kind(self) -> str:
        return "<f4" if self.scale is None else "u1"

    @property
    def _row_bytes(self) -> int:
        return self.dim if self.scale is not None else 4 * self.dim

    def _check(self, number: int, data: NDArray[np.uint8]) -> None:
        if not self._seen[number]:
            if self._sums is not None and summed(data) != int(self._sums[number]):
                raise LibraryCorrupt(f"{self.path} has changed since it was written (list {number})")
            self._seen[number] = True

    def _read_into(self, start: int, buffer: NDArray[np.uint8]) -> None:
        view, done = buffer.data, 0
        while done < len(view):
            got = self._read_some(start + done, view[done:])
            if not got:
                raise LibraryCorrupt(f"{self.path} ends after {start + done} bytes; it has become shorter")
            done += got

    def _read_some(self, start: int, view: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._stream.fileno(), [view], start)
        with self._lock:  # one place to read at for all threads
            self._stream.seek(start)
            return int(self._stream.readinto(view))

    def _bytes(self, start: int, count: int) -> bytes:
        if start < 0 or start + count > self._size:
            raise ValueError(f"it ends after {self._size} bytes, expected {start + count}")
        buffer = np.empty(count, np.uint8)
        self._read_into(start, buffer)
        return buffer.tobytes()

    def _read_trailer(self) -> None:
        self._size = self._end = self._stream.seek(0, 2)
        length, check, end, magic = FOOTER.unpack(self._bytes(self._size - FOOTER.size, FOOTER.size))
        if magic != MAGIC:  # written by FAISS itself, or before there was a trailer
            return
        self._end = end
        trailer = self._bytes(end, self._size - FOOTER.size - end)
        if zlib.crc32(trailer) != check or (len(trailer) - length) % 8:
            raise ValueError("its trailer is damaged")
        self._sums = np.frombuffer(trailer, "<u8", (len(trailer) - length) // 8)
        text = json.loads(trailer[len(trailer) - length :])
        self.facts, self._crc = text["facts"], text["crc32"]

    def _read_index(self) -> None:
        kind, at = self._bytes(0, 4), HEADER.size
        if kind in (b"IwFl", b"IwSq"):
            self._read_lists(at, kind == b"IwSq")
        elif kind == b"IxM2":
            self._read_flat(at)
        else:
            raise ValueError(f"it begins with {kind!r}, a FAISS index of another kind")
        if int(self.sizes.sum()) != self.count or (self.sizes < 0).any():
            raise ValueError(f"its lists hold {int(self.sizes.sum())} vectors, its header says {self.count}")
        self.first = np.cumsum(self.sizes) - self.sizes
        self._seen = np.zeros(len(self.sizes), np.bool_)
        if self._sums is not None and len(self._sums) != np.count_nonzero(self.sizes):
            raise ValueError(f"it has {len(self._sums)} sums for {np.count_nonzero(self.sizes)} lists")
        if self._sums is not None:
            sums = np.zeros(len(self.sizes), np.uint64)
            sums[self.sizes > 0] = self._sums
            self._sums = sums

    def _read_flat(self, at: int) -> None:
        self.dim, self.count, at = self._read_header(at, b"IxFI")
        size = self.count * self.dim
        self._expect(at, size)
        self._check_head(at + 8)
        ids = at + 8 + 4 * size
        self._expect(ids, self.count)
        self._ids_at = ids + 8
        self._ends_at(self._ids_at + 8 * self.count)
        starts = np.arange(0, self.count, FLAT_ROWS, dtype=np.int64)
        self.sizes = np.minimum(self.count - starts, FLAT_ROWS)
        self._vectors_at = at + 8 + starts * 4 * self.dim

    def _read_lists(self, at: int, coded: bool) -> None:
        _, self.dim, self.count, *_ = HEADER.unpack(self._bytes(0, HEADER.size))
        lists, self.probes = struct.unpack("<QQ", self._bytes(at, 16))
        dim, count, at = self._read_header(at + 16, b"IxFI")
        if (dim, count) != (self.dim, lists):
            raise ValueError(f"its centroids are {count} of {dim}, expected {lists} of {self.dim}")
        self._expect(at, lists * dim)
        self.centroids = np.frombuffer(self._bytes(at + 8, 4 * lists * dim), "<f4").reshape(lists, dim)
        at += 8 + 4 * lists * dim + 9
        if coded:
            at = self._read_scale(at)
        expected = struct.pack("<4sQQ4sQ", b"ilar", lists, self._row_bytes, b"full", lists)
        if self._bytes(at, len(expected)) != expected:
            raise ValueError("its lists are of another kind")
        at += len(expected)
        self.sizes = np.frombuffer(self._bytes(at, 8 * lists), "<i8").astype(np.int64)
        at += 8 * lists
        self._check_head(at)
        width = self._row_bytes + 8
        self._vectors_at = at + (np.cumsum(self.sizes) - self.sizes) * width
        self._ids_at = at + self.count * width
        if self._sums is None:
            raise ValueError("it was not written here")
        self._ends_at(self._ids_at + 8 * self.count)

    def _read_scale(self, at: int) -> int:
        kind, _, _, dim, row_bytes, numbers = SCALE.unpack(self._bytes(at, SCALE.size))
        if (kind, dim, row_bytes, numbers) != (0, self.dim, self.dim, 2 * self.dim):
            raise ValueError("its codes are of another kind")
        at += SCALE.size
        lowest, width = np.frombuffer(self._bytes(at, 8 * dim), "<f4").reshape(2, dim)
        self.scale = Scale(lowest, width)
        at += 8 * dim
        if self._bytes(at, 9) != struct.pack("<QB", dim, 0):
            raise ValueError("its codes are of another kind")
        return at + 9

    def _check_head(self, stop: int) -> None:
        if self._sums is not None and zlib.crc32(self._bytes(0, stop)) != self._crc["head"]:
            raise ValueError("its head has changed since it was written")

    def _read_header(self, at: int, wanted: bytes) -> tuple[int, int, int]:
        found, dim, count, _, _, _, metric = HEADER.unpack(self._bytes(at, HEADER.size))
        if found != wanted or metric != METRIC_INNER_PRODUCT or dim < 1 or count < 0:
            raise ValueError("it holds a FAISS index of another kind")
        return dim, count, at + HEADER.size

    def _expect(self, at: int, count: int) -> None:
        (found,) = struct.unpack("<Q", self._bytes(at, 8))
        if found != count:
            raise ValueError(f"it lists {found} numbers where {count} belong")

    def _ends_at(self, stop: int) -> None:
        if stop != self._end:
            raise ValueError(f"it ends after {self._end} bytes, expected {stop}")


def summed(data: NDArray[np.uint8]) -> int:
    """64-bit words added up modulo 2^64, the last one filled with zeros."""
    whole = len(data) // 8 * 8
    rest = int.from_bytes(data[whole:].tobytes(), "little")
    return (int(data[:whole].view("<u8").sum(dtype=np.uint64)) + rest) % (1 << 64)
