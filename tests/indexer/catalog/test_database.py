"""The database: its schema and its migrations agree, and a bad one is one clear error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

import indexer
from indexer.base.errors import LibraryCorrupt, LibraryError, LibraryLocked, LibraryNotFound, SchemaOutdated
from indexer.base.lock import writer_lock
from indexer.catalog.database import Catalog
from indexer.catalog.known_schema import SCHEMA_REVISION
from indexer.catalog.schema import metadata
from indexer.search import index_writing
from indexer.search.search import CATALOG_FILE
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_migrations_make_the_tables_of_the_schema(tmp_path: Path) -> None:
    catalog = Catalog.open(url(tmp_path / "c.sqlite"), migrate_schema=True)
    with catalog.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        for table in metadata.tables:
            indexes = {index["name"] for index in inspect(connection).get_indexes(table)}
            assert {str(index.name) for index in metadata.tables[table].indexes} <= indexes
    catalog.close()


def test_the_revision_in_the_code_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(indexer.__file__).parent / "catalog" / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_REVISION


def test_pragmas(tmp_path: Path) -> None:
    catalog = Catalog.open(url(tmp_path / "c.sqlite"), migrate_schema=True)
    with catalog.begin() as connection:
        values = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert values == ["wal", 1, 1, 30_000]
    catalog.close()


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    catalog = Catalog.open(url(tmp_path / "c.sqlite"), migrate_schema=True)

    def half() -> None:
        with catalog.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE half (x)")
            connection.exec_driver_sql("UPDATE library SET change = 5")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    with catalog.begin() as connection:
        assert connection.exec_driver_sql("SELECT change FROM library").scalar_one() == 0
        assert "half" not in inspect(connection).get_table_names()
    catalog.close()


def test_no_library(tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFound, match="mmsearch index"):
        Store.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_library_whose_making_was_interrupted(tmp_path: Path) -> None:
    (tmp_path / CATALOG_FILE).touch()  # SQLite makes an empty file before anything is in it
    with pytest.raises(SchemaOutdated, match="mmsearch index"):
        Store.open(tmp_path)
    with Store.open(tmp_path, create=True) as store:
        assert store.status().images == 0


@pytest.mark.parametrize(
    "damage", [b"this is not a database, whatever its name says " * 50, b"SQLite format 3\0" + b"\xff" * 4000]
)
def test_a_file_that_is_no_database(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / CATALOG_FILE).write_bytes(damage)
    for create in (False, True):
        with pytest.raises(LibraryCorrupt, match=r"catalog\.sqlite") as caught:
            Store.open(tmp_path, create=create)
        assert "\n" not in str(caught.value)
    assert (tmp_path / CATALOG_FILE).read_bytes() == damage  # left for whoever can mend it


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    for number in range(40):
        paint(tmp_path / "photos" / f"{number}.png", "red", seed=number)
    encoder = FakeEncoder(dim=2048)
    with Store.open(tmp_path / "library", create=True) as store:
        with store._catalog.begin() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 60}")
        with pytest.raises(LibraryError, match=r"full") as caught:
            store.ingest(tmp_path / "photos", encoder, batch_size=4)
        assert "\n" not in str(caught.value)
        with store._catalog.begin() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
        before = encoder.encoded
        assert 4 < before < 40
        report = store.ingest(tmp_path / "photos", encoder, batch_size=4)
        assert report.added + report.unchanged == 40
        assert encoder.encoded <= 40 + 4


def test_an_index_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    encoder = FakeEncoder()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Store.open(tmp_path / "library", create=True) as store:
        with monkeypatch.context() as patch:
            patch.setattr(index_writing, "sync", full)
            with pytest.raises(LibraryError, match="No space left on device"):
                store.ingest(tmp_path / "photos", encoder)
        assert list((tmp_path / "library" / "vectors").iterdir()) == []
        query = encoder.embed_texts(["red"]).mu[0]
        assert len(store.search(query, 3, fingerprint=encoder.fingerprint)) == 1
        assert store.ingest(tmp_path / "photos", encoder).unchanged == 1
        assert len(list((tmp_path / "library" / "vectors").iterdir())) == 1


@pytest.mark.parametrize("name", ["what?", "100% #1", "äöü", "a b"])
def test_libraries_with_odd_names(tmp_path: Path, name: str) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    with Store.open(tmp_path / name, create=True) as store:
        assert store.ingest(tmp_path / "photos", FakeEncoder()).added == 1
    assert (tmp_path / name / CATALOG_FILE).is_file()
    with Store.open(tmp_path / name) as store:
        assert store.status().images == 1


def test_a_catalog_of_a_newer_version(tmp_path: Path) -> None:
    with Store.open(tmp_path, create=True) as store, store._catalog.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LibraryError, match="9999"):
        Store.open(tmp_path)
    with pytest.raises(LibraryError, match="update mmsearch"):
        Store.open(tmp_path, create=True)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LibraryError, match="--library"):
        Store.open(tmp_path / "file" / "library", create=True)


def test_making_a_library_takes_the_lock(tmp_path: Path) -> None:
    with writer_lock(tmp_path), pytest.raises(LibraryLocked):
        Store.open(tmp_path, create=True)


def test_ids_are_never_used_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    paint(photos / "a.jpg", "red")
    encoder = FakeEncoder()
    with Store.open(tmp_path / "library", create=True) as store:
        store.ingest(photos, encoder)
        first = store.asset_id_of(photos / "a.jpg")
        assert first is not None
        with store._catalog.begin() as connection:
            connection.exec_driver_sql("DELETE FROM vectors")
            connection.exec_driver_sql("DELETE FROM assets")
        store.ingest(photos, encoder)
        second = store.asset_id_of(photos / "a.jpg")
        assert second is not None
        assert second > first


def test_another_place_for_the_catalog(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "a.jpg", "red")
    place = url(tmp_path / "elsewhere.sqlite")
    with Store.open(tmp_path / "library", create=True, url=place) as store:
        assert store.ingest(tmp_path / "photos", FakeEncoder()).added == 1
    assert not (tmp_path / "library" / CATALOG_FILE).exists()
    with Store.open(tmp_path / "library", url=place) as store:
        assert store.status().images == 1


def test_a_search_loads_neither_alembic_nor_the_way_in(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "a.jpg", "red")
    with Store.open(tmp_path / "library", create=True) as store:
        store.ingest(tmp_path / "photos", FakeEncoder())
    code = (
        "import sys, numpy as np; from pathlib import Path; from indexer.store import Store\n"
        "from indexer.search.search import Question, Searcher\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "searcher = Searcher.open(store.path, store.mend_index)\n"
        "assert searcher.answer(Question(np.ones((1, 16), np.float32), 1, store.model().fingerprint))[0]\n"
        "print([m for m in ('alembic', 'torch', 'typer', 'mmsearch', 'indexer.ingest.ingest') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "library")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
