"""Every row outside the damage comes through."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from indexer.catalog import damaged, root_updates, tables
from indexer.catalog.assets import Description, FileState, insert
from indexer.catalog.database import Catalog
from tests.indexer.catalog.endless import make_endless
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


@pytest.mark.parametrize("table", ["assets", "notices", "library"])
def test_rows_without_end_end(tmp_path: Path, table: str) -> None:
    path = tmp_path / "catalog.sqlite"
    filled(path)
    make_endless(path, table)
    started = time.perf_counter()
    assert recovered(path)["assets"] <= FILES
    assert time.perf_counter() - started < 10
