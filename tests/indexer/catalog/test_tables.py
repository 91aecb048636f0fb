"""Whole tables: what comes out goes into another catalog, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import IMAGE, Model
from indexer.catalog import checks, tables, vectors
from indexer.catalog.database import Catalog
from indexer.catalog.tables import TABLES, Row
from tests.indexer.catalog.conftest import AddFile
from tests.indexer.catalog.test_checks import ONE, sql

BY_NAME = {table.name: table for table in TABLES}


def rows_of(connection: Connection, name: str) -> list[Row]:
    return [row for page in tables.pages(connection, BY_NAME[name]) for row in page]


def test_every_table_but_the_cache_is_one_of_them(connection: Connection) -> None:
    every = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars())
    assert {name for name in every if not name.startswith("sqlite_")} - BY_NAME.keys() == {
        "alembic_version",
        "generations",
    }
    kinds = {column.name: column.kind for column in BY_NAME["assets"].columns}
    assert (kinds["id"], kinds["rel_path"], kinds["content_hash"]) == ("int", "path", "bytes")
    assert (kinds["taken_at"], kinds["latitude_deg"], kinds["state"]) == ("time", "float", "text")


def test_vectors_are_numbered_in_the_order_of_their_blobs(
    connection: Connection, model: Model, add_file: AddFile
) -> None:
    blobs = {add_file(f"{number}.png"): vectors.Blobs(bytes([number]) * 8, b"\2" * 8) for number in range(4)}
    vectors.set_own(connection, model, blobs)
    sql(connection, ["UPDATE vectors SET mu = NULL, logvar = NULL WHERE asset_id = 2"])
    assert [row["row"] for row in rows_of(connection, "vectors")] == [0, None, 1, 2]
    assert [blob[0] for blob in tables.blobs(connection, model, "mu")] == [0, 2, 3]
    assert tables.count_blobs(connection, model) == 3
    assert tables.all_models(connection) == [model]


def test_rows_go_into_another_catalog_and_kinds_follow(
    connection: Connection, model: Model, add_file: AddFile, tmp_path: Path
) -> None:
    vectors.set_own(connection, model, {add_file("b\udcff.png"): ONE})
    other = Catalog.open(tmp_path / "other.sqlite", migrate_schema=True)
    with other.begin() as into:
        with tables.bulk(into):
            tables.make_room(into)
            for table in TABLES:
                for row in rows_of(connection, table.name):
                    if table.name == "vectors":
                        del row["row"]
                        row |= {"mu": ONE.mu, "logvar": ONE.logvar, "kind": 0}
                    tables.insert(into, table, [row])
        assert rows_of(into, "assets") == rows_of(connection, "assets")
        assert [row["kind"] for row in rows_of(into, "vectors")] == [IMAGE]
        assert tables.library_ids(into) == [1]
        assert checks.dangling(into) == []
        assert not tables.has_odd_frames(into)
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        assert list(into.exec_driver_sql(triggers)) == list(connection.exec_driver_sql(triggers)) != []
        with pytest.raises(ValueError, match="UNIQUE"):
            tables.insert(into, BY_NAME["assets"], rows_of(connection, "assets"))
    other.close()


def test_a_copy_is_of_one_moment_and_never_of_a_damaged_file(catalog: Catalog, tmp_path: Path) -> None:
    tables.copy_to(catalog, tmp_path / "copy.sqlite")
    copy = Catalog.open(tmp_path / "copy.sqlite", migrate_schema=False)
    with copy.begin() as connection:
        assert tables.library_ids(connection) == [1]
    copy.close()
    catalog.close()
    path = tmp_path / "catalog.sqlite"
    data = bytearray(path.read_bytes())
    data[4096 : 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(LibraryCorrupt, match="keep your older backups"):
        tables.copy_to(catalog, tmp_path / "another.sqlite")
