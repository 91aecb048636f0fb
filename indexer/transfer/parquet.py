"""Parquet of anybody's, read only as far as it fits: a file of kilobytes may say that it unpacks to terabytes.

In: a Parquet file. Out: its rows, some thousands at a time. Before anything is unpacked, every page says how large it
will be (its own header, by which the reader allocates; the footer may say something else) and how it is encoded. What
is repeated in the file by reference, one long text a million times, is counted before it is repeated in memory.
Next: `restore.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from indexer.base.errors import LibraryCorrupt
from indexer.transfer.archive import ROWS_AT_ONCE

GROUP_LIMIT_BYTES: Final = 256 << 20  # of one group of rows, unpacked; `export.py` writes 8,192 rows a group
SMALL_BYTES: Final = 256 << 20  # a table may always be so large
RATIO: Final = 200  # and beyond that so many times its file; file names and times of real libraries reach 20
BATCH_LIMIT_BYTES: Final = 512 << 20  # of the rows that are in memory together
FOOTER_LIMIT: Final = 8 << 20  # bytes of one string in the footer, and entries of one list
ENCODINGS: Final = frozenset({0, 2, 3, 4, 8})  # PLAIN, dictionaries, RLE: in the others, values grow by reference
_DATA, _DATA_V2 = 5, 8  # fields of a page's header


def open_table(path: Path) -> pq.ParquetFile:
    """The file, all pages of which can be read. Raises: LibraryCorrupt; ValueError, OSError for no Parquet."""
    limits = {"thrift_string_size_limit": FOOTER_LIMIT, "thrift_container_size_limit": FOOTER_LIMIT}
    with pq.ParquetFile(path, **limits) as first:
        footer = first.metadata
    columns = [footer.schema.column(at) for at in range(footer.num_columns)]
    texts = [column.name for column in columns if column.physical_type == "BYTE_ARRAY"]
    left = _allowed_bytes(path)
    with path.open("rb") as file:
        for at in range(footer.num_row_groups):
            size_bytes = _size_of(file, footer.row_group(at), path.name)
            left -= size_bytes
            if size_bytes > GROUP_LIMIT_BYTES or left < 0:
                raise _too_large(path, size_bytes)
    return pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False, **limits)


def rows_of(file: pq.ParquetFile, path: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows, `ROWS_AT_ONCE` at a time. Raises: LibraryCorrupt where they are larger than `open_table` could know."""
    left = _allowed_bytes(path)
    for part in file.iter_batches(batch_size=ROWS_AT_ONCE):
        size_bytes = sum(_unpacked_bytes(column) for column in part.columns)
        left -= size_bytes
        if size_bytes > BATCH_LIMIT_BYTES or left < 0:
            raise _too_large(path, size_bytes)
        yield part.to_pylist()


def _allowed_bytes(path: Path) -> int:
    return max(SMALL_BYTES, RATIO * path.stat().st_size)


def _too_large(path: Path, size_bytes: int) -> LibraryCorrupt:
    return LibraryCorrupt(f"{path.name} unpacks to far more than any library's, {size_bytes:,} bytes at once")


def _unpacked_bytes(column: Any) -> int:
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    return 8 * len(column) + int(pc.sum(lengths).as_py() or 0)


def _size_of(file: Any, group: Any, name: str) -> int:
    """Bytes of all pages of a group of rows once they are unpacked, as the pages say."""
    total = 0
    for at in range(group.num_columns):
        column = group.column(at)
        starts = [column.data_page_offset, column.dictionary_page_offset or column.data_page_offset]
        start, size = min(starts), column.total_compressed_size
        if start < 4 or not 0 <= size < 1 << 31:
            raise LibraryCorrupt(f"{name} has a column of {size:,} bytes at {start:,}")
        file.seek(start)
        data = file.read(size)
        place = 0
        while place < len(data):
            header, place = _header(data, place)
            encodings = {header[one][number] for one, number in ((_DATA, 2), (_DATA_V2, 4)) if one in header}
            if header[2] < 0 or header[3] < 0 or not encodings <= ENCODINGS:
                raise LibraryCorrupt(f"{name} holds a page as no library writes one")
            total += header[2]
            place += header[3]
    return total


def _header(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol as numbers by field, and where it ends. Raises: ValueError."""
    fields: dict[int, Any] = {}
    field = 0
    while depth < 8:
        kind = _byte(data, at)
        at += 1
        if kind == 0:
            return fields, at
        if kind >> 4:
            field += kind >> 4
        else:
            field, at = _integer(data, at)
        fields[field], at = _value(data, at, kind & 15, depth)
    raise ValueError("structs in structs")


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true and false are kinds of their own
        return kind == 1, at
    if kind == 3:
        return _byte(data, at), at + 1
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 7:
        return struct.unpack_from("<d", data, at)[0], at + 8
    if kind == 8:
        size, at = _varint(data, at)
        return None, at + size
    if kind == 12:
        return _header(data, at, depth + 1)
    raise ValueError(f"kind {kind} in a page's header")


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise ValueError("a page's header has no end")
    return data[at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(data, at)
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number has no end")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
