"""Rows that hold what no row can: found, named, and set aside whole with those that speak of them."""

from __future__ import annotations

import base64
import json
import resource
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from indexer.base.errors import LibraryCorrupt, RowCorrupt
from indexer.catalog import roots, wrong_rows
from indexer.catalog.columns import MOST_ROOTS
from indexer.catalog.database import Catalog
from indexer.catalog.roots import all_roots
from tests.fakes import FakeEncoder
from tests.indexer.asking import Store
from tests.indexer.maintenance.visits import faults, see
from tests.indexer.snapshots import contents


def sql(store: Store, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(store.path / "catalog.sqlite")) as connection, connection:
        assert connection.execute(statement, values).rowcount


def aside(store: Store) -> list[dict[str, Any]]:
    lines = [line for path in sorted(store.path.glob("set-aside-*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def catalog_of(store: Store) -> Catalog:
    return store._catalog


def test_a_sound_catalog_has_none(filled: Store) -> None:
    with catalog_of(filled).begin() as connection:
        assert wrong_rows.find(connection) == {}
        assert wrong_rows.first(connection) is None


def test_the_error_names_table_row_and_column(filled: Store) -> None:
    sql(filled, "UPDATE assets SET camera = CAST(x'ff' AS TEXT) WHERE id = 3")
    sql(filled, "UPDATE vectors SET change = 'now' WHERE id = 5")
    with catalog_of(filled).begin() as connection:
        assert wrong_rows.find(connection) == {"assets": {3}, "vectors": {5}}
        assert "row 3 of assets has camera = '\\udcff', not text" in str(wrong_rows.first(connection))
    with pytest.raises(RowCorrupt, match="row 3 of assets has camera"):
        filled.export(filled.path.parent / "archive.tar")


def test_a_file_set_aside_takes_its_rows_with_it_and_comes_back_by_an_index_run(
    filled: Store, photos: Path, encoder: FakeEncoder
) -> None:
    before = contents(filled.path)
    with catalog_of(filled).begin() as connection:
        row = dict(
            connection.exec_driver_sql("SELECT * FROM assets WHERE rel_path = x'7265642e706e67'").mappings().one()
        )
    sql(filled, "UPDATE assets SET size_bytes = -1 WHERE id = ?", row["id"])
    report = see(filled.path, encoder, repair=True)
    assert report.sound
    (mended,) = (check for check in report.checks if check.name == "rows")
    assert mended.mended
    assert "1 of assets" in mended.found
    kept = aside(filled)
    assert {line["table"] for line in kept} == {"assets", "vectors", "captions", "about"}
    (of_file,) = (line for line in kept if line["table"] == "assets")
    assert of_file["row"] == row["id"]
    blobs = {name: base64.b64decode(value["base64"]) for name, value in of_file["cells"].items() if type(value) is dict}
    assert {**of_file["cells"], **blobs} == {**row, "size_bytes": -1}
    filled.ingest(photos, encoder)
    assert contents(filled.path) == before


def test_a_folder_that_is_set_aside_keeps_its_files_until_it_is_indexed_again(
    filled: Store, photos: Path, encoder: FakeEncoder
) -> None:
    sql(filled, "UPDATE roots SET path = 3000000000")
    with (
        catalog_of(filled).begin() as connection,
        pytest.raises(RowCorrupt, match="row 1 of roots has path = 3000000000"),
    ):
        all_roots(connection)
    assert see(filled.path, encoder, repair=True).sound
    assert [line["table"] for line in aside(filled)] == ["roots"]
    encoded = encoder.encoded
    filled.ingest(photos, encoder)
    assert encoder.encoded == encoded


@pytest.mark.parametrize("value", [2**63 - 1, -1, "x"])
def test_a_counter_that_cannot_count_on_is_found_and_begins_anew(
    filled: Store, photos: Path, encoder: FakeEncoder, value: object
) -> None:
    sql(filled, "UPDATE library SET change = ?", value)
    with pytest.raises(RowCorrupt, match="row 1 of library has change"):
        filled.ingest(photos, encoder)
    assert faults(see(filled.path, encoder)) == {"rows": 1}
    assert see(filled.path, encoder, repair=True).sound
    (photos / "new.md").write_text("something new")
    assert filled.ingest(photos, encoder).added == 1


def test_an_id_beyond_which_there_is_none_does_not_end_a_library(
    filled: Store, photos: Path, encoder: FakeEncoder
) -> None:
    sql(filled, "UPDATE sqlite_sequence SET seq = ? WHERE name = 'assets'", 2**63 - 1)
    assert faults(see(filled.path, encoder)) == {"rows": 1}
    assert see(filled.path, encoder, repair=True).sound
    (photos / "new.md").write_text("something new")
    assert filled.ingest(photos, encoder).added == 1


def test_what_is_longer_than_sqlite_may_read_is_never_read(filled: Store, encoder: FakeEncoder) -> None:
    sql(filled, "UPDATE vectors SET mu = zeroblob(40000000) WHERE id = 2")
    sql(filled, "UPDATE assets SET excerpt = CAST(zeroblob(40000000) AS TEXT) WHERE id = 3")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert see(filled.path, encoder, repair=True).sound
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 100_000
    (vector,) = (line["cells"] for line in aside(filled) if (line["table"], line["row"]) == ("vectors", 2))
    assert vector["mu"]["bytes"] == 40_000_000
    assert len(vector["mu"]["base64"]) < 2_000_000


def test_a_keyframe_set_aside_has_its_video_encoded_again(filled: Store, encoder: FakeEncoder) -> None:
    sql(
        filled,
        "INSERT INTO frames (asset_id, model_id, time_ms, mu) SELECT asset_id, model_id, 'x', mu FROM vectors"
        " WHERE id = 1",
    )
    assert see(filled.path, encoder, repair=True).sound
    assert {line["table"] for line in aside(filled)} == {"frames", "vectors"}


def test_more_folders_than_anybody_names_are_refused_and_those_without_files_set_aside(
    filled: Store, encoder: FakeEncoder
) -> None:
    with closing(sqlite3.connect(filled.path / "catalog.sqlite")) as connection, connection:
        many = ((f"/nobody/{number}".encode(),) for number in range(MOST_ROOTS + 1))
        connection.executemany("INSERT INTO roots (path, pairing_due) VALUES (?, 0)", many)
    with catalog_of(filled).begin() as connection, pytest.raises(LibraryCorrupt, match="more than 10,000 folders"):
        roots.all_roots(connection)
    assert see(filled.path, encoder, repair=True).sound
    assert len(filled.status().roots) == 1
