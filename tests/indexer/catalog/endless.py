"""A catalog whose table has rows without end: pages that all lead to one next page, down to a leaf of before."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

PAGE_BYTES = 4096
LEVELS = 6
CHILDREN = 300  # 300^6 rows, each visited in the same order


def make_endless(catalog: Path, table: str) -> None:
    """The format is https://www.sqlite.org/fileformat.html#b_tree_pages."""
    with closing(sqlite3.connect(catalog)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    data = bytearray(catalog.read_bytes())
    last = len(data) // PAGE_BYTES
    start = (root - 1) * PAGE_BYTES
    leaf = bytes(data[start : start + PAGE_BYTES])
    data[start : start + PAGE_BYTES] = _inner(last + 1)
    for level in range(1, LEVELS):
        data += _inner(last + 1 + level)
    data += leaf
    struct.pack_into(">I", data, 28, len(data) // PAGE_BYTES)
    catalog.write_bytes(data)


def _inner(child: int) -> bytes:
    page, at = bytearray(PAGE_BYTES), PAGE_BYTES
    for number in range(CHILDREN):
        key = number + 1
        cell = struct.pack(">I", child) + (bytes([key]) if key < 128 else bytes([0x80 | key >> 7, key & 127]))
        at -= len(cell)
        page[at : at + len(cell)] = cell
        struct.pack_into(">H", page, 12 + 2 * number, at)
    struct.pack_into(">BHHHB", page, 0, 5, 0, CHILDREN, at, 0)
    struct.pack_into(">I", page, 8, child)
    return bytes(page)
