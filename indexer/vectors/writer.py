"""Index files as they are written: FAISS's own format, piece by piece without FAISS, and the trailer behind it.

In: rows in lists, and where there is more than one list its centroids. Out: what `layout.py` reads, which says more.
Next: `file_index.py`, which searches these.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from indexer.base.types import Float32Array
from indexer.vectors.base import Int64Array
from indexer.vectors.codes import Scale
from indexer.vectors.layout import FOOTER, HEADER, MAGIC, METRIC_INNER_PRODUCT, SCALE, Stored, summed

QT_8BIT: Final = 0


def write_flat(path: Path, dim: int, ids: Int64Array, parts: Iterable[Float32Array]) -> None:
    """Vectors under `ids` `[n]`, in one list; each of `parts` but the last holds `FLAT_ROWS` of them."""
    with _Writer(path) as out:
        out.put(HEADER.pack(b"IxM2", dim, len(ids), 1 << 20, 1 << 20, 1, METRIC_INNER_PRODUCT))
        out.put(HEADER.pack(b"IxFI", dim, len(ids), 1 << 20, 1 << 20, 1, METRIC_INNER_PRODUCT))
        out.put(struct.pack("<Q", len(ids) * dim))
        out.end_head()
        for vectors in parts:
            out.put_rows(vectors)
        out.put(struct.pack("<Q", len(ids)))
        out.finish(ids, {})


def write_lists(
    path: Path,
    centroids: Float32Array,
    sizes: Int64Array,
    probes: int,
    lists: Iterable[tuple[Int64Array, Stored]],
    facts: dict[str, Any],
    scale: Scale | None = None,
) -> None:
    """One list a centroid `[c, d]`, of `sizes` `[c]` rows; `probes` of them are looked at by default.

    The rows are float32 vectors, or with a `scale` uint8 codes.
    """
    count, dim = len(centroids), centroids.shape[1]
    kind, row_bytes = (b"IwFl", 4 * dim) if scale is None else (b"IwSq", dim)
    with _Writer(path) as out:
        out.put(HEADER.pack(kind, dim, int(sizes.sum()), 1 << 20, 1 << 20, 1, METRIC_INNER_PRODUCT))
        out.put(struct.pack("<QQ", count, probes))
        out.put(HEADER.pack(b"IxFI", dim, count, 1 << 20, 1 << 20, 1, METRIC_INNER_PRODUCT))
        out.put(struct.pack("<Q", count * dim))
        out.put(np.ascontiguousarray(centroids, "<f4").data.cast("B"))
        out.put(struct.pack("<BQ", 0, 0))  # no direct map
        if scale is not None:
            out.put(SCALE.pack(QT_8BIT, 0, 0.0, dim, dim, 2 * dim))
            out.put(np.concatenate([scale.lowest, scale.width]).astype("<f4").tobytes())
            out.put(struct.pack("<QB", dim, 0))  # bytes a row; codes of vectors, not of what a centroid leaves of them
        out.put(struct.pack("<4sQQ4sQ", b"ilar", count, row_bytes, b"full", count))
        out.put(np.ascontiguousarray(sizes, "<u8").data.cast("B"))
        out.end_head()
        written = [np.empty(0, np.int64)]
        for ids, rows in lists:
            out.put_rows(rows)
            out.put(np.ascontiguousarray(ids, "<i8").tobytes())
            written.append(ids)
        out.finish(np.concatenate(written), facts)  # all ids again, in one piece: filters need them, but no vectors


class _Writer:
    """A file that sums itself up as it is written."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._sums: list[int] = []
        self._head: int | None = None  # crc32 of what stands before the vectors
        self._running = 0
        self._size = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._size += len(data)
        if self._head is None:
            self._running = zlib.crc32(data, self._running)

    def end_head(self) -> None:
        self._head = self._running

    def put_rows(self, rows: Stored) -> None:
        if len(rows):
            kind = "u1" if rows.dtype == np.uint8 else "<f4"
            data = np.ascontiguousarray(rows, kind).view(np.uint8).reshape(-1)
            self._sums.append(summed(data))
            self.put(data.data)

    def finish(self, ids: Int64Array, facts: dict[str, Any]) -> None:
        data = np.ascontiguousarray(ids, "<i8").tobytes()
        crc = {"head": self._head, "ids": zlib.crc32(data)}
        self.put(data)
        text = json.dumps({"crc32": crc, "facts": facts}).encode()
        trailer = np.array(self._sums, "<u8").tobytes() + text
        self._file.write(trailer + FOOTER.pack(len(text), zlib.crc32(trailer), self._size, MAGIC))
