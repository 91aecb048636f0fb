"""Every row outside the damage comes through."""

from __future__ import annotations

import sqlite3
import struct
import time
from contextlib import closing
from pathlib import Path

import pytest

from indexer.catalog import damaged, root_updates, tables
from indexer.catalog.assets import Description, FileState, insert
from indexer.catalog.database import Catalog
from tests.indexer.catalog.test_door import STRANGE

FILES = 2000


def filled(path: Path) -> None:
    catalog = Catalog.open(path, migrate_schema=True)
    with catalog.begin() as connection:
        root = root_updates.add(connection, path.with_name("photos"))
        for number in range(FILES):
            insert(connection, root, FileState(f"{number}.png", "image", 10, 20, b"\0" * 20), Description())
    catalog.close()


def recovered(path: Path) -> dict[str, int]:
    fresh = Catalog.open(path.with_name("fresh.sqlite"), migrate_schema=True)
    with fresh.begin() as connection:
        with tables.bulk(connection):
            saved = damaged.recover(path, connection)
        assert saved["assets"] == tables.count(connection, "assets")
        assert tables.library_ids(connection) == [1]
    fresh.close()
    path.with_name("fresh.sqlite").unlink()
    return saved


def test_a_page_that_cannot_be_read_costs_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    filled(path)
    saved = recovered(path)
    assert (saved["assets"], saved["roots"], saved["library"]) == (FILES, 1, 1)
    data = bytearray(path.read_bytes())
    at = data.index(b"1000.png") // 4096 * 4096  # a leaf of the table, or of its index on paths
    data[at : at + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    saved = recovered(path)
    assert FILES - 200 < saved["assets"] <= FILES
    assert saved["roots"] == 1


def test_what_is_no_database_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(b"\0" * 9999)
    assert set(recovered(path).values()) == {0}


@pytest.mark.parametrize("strange", STRANGE)
def test_a_foreign_schema_gives_its_rows_and_runs_nothing(tmp_path: Path, strange: str) -> None:
    path = tmp_path / "catalog.sqlite"
    filled(path)
    STRANGE[strange][1](path)
    saved = recovered(path)
    if strange != "a statement that is none":
        assert (saved["assets"], saved["roots"]) == (FILES, 1)
    assert saved["notices"] == 0


def test_pages_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    """Every cell of the root of `assets` leads to the root itself, or to one leaf."""
    path = tmp_path / "catalog.sqlite"
    filled(path)
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'assets'").fetchone()
    whole = path.read_bytes()
    page = bytearray(whole[(root - 1) * 4096 : root * 4096])
    assert page[0] == 5, "an inner page of a table"
    cells = [
        struct.unpack_from(">H", page, 12 + 2 * number)[0] for number in range(struct.unpack_from(">H", page, 3)[0])
    ]
    leaf = struct.unpack_from(">I", page, cells[0])[0]
    for to in (root, leaf):
        for cell in cells:
            struct.pack_into(">I", page, cell, to)
        path.write_bytes(whole[: (root - 1) * 4096] + bytes(page) + whole[root * 4096 :])
        started = time.perf_counter()
        assert recovered(path)["assets"] <= FILES
        assert time.perf_counter() - started < 10
