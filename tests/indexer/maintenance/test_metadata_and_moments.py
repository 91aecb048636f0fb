"""What pictures say of themselves and the moments of videos, through excludes, moves, archives, repairs and models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from indexer.base.errors import LibraryCorrupt
from indexer.catalog.damaged import salvage
from indexer.catalog.schema import about, frames
from indexer.decoding.sandbox import JOURNAL_FILE
from indexer.search.search import CATALOG_FILE
from indexer.transfer.restore import restore
from tests.fakes import FakeEncoder
from tests.indexer.asking import Store
from tests.indexer.decoding.test_video import film
from tests.indexer.files.test_excludes import ignore
from tests.indexer.ingest.samples import TAKEOUT, hits, painted, rows, said
from tests.indexer.snapshots import contents
from tests.indexer.test_crash import Crash, crash_at
from tests.indexer.transfer.archives import seal

WORDS = [("a.jpg", "Anna, Ben"), ("a.jpg", "a blue whale"), ("b.jpg", "an elephant")]


def fill(photos: Path) -> None:
    painted(photos / "a.jpg", seed=1)
    (photos / "a.jpg.json").write_text(json.dumps(TAKEOUT))
    painted(photos / "b.jpg", "an elephant", seed=2)
    (photos / "film.mp4").write_bytes(film("red", "blue"))


@pytest.fixture
def filled(store: Store, encoder: FakeEncoder, photos: Path) -> Store:
    fill(photos)
    store.ingest(photos, encoder)
    assert said(store, encoder) == WORDS
    return store


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    fill(folder / "photos")
    with Store.open(folder / "library", create=True) as store:
        store.ingest(folder / "photos", FakeEncoder())
        store.export(folder / "archive")
    return folder / "archive"


def kept(store: Store) -> list[list[tuple[Any, ...]]]:
    with store._catalog.begin() as connection:
        return [[tuple(row) for row in connection.execute(select(table).order_by("id"))] for table in (about, frames)]


def moment(store: Store, encoder: FakeEncoder, colour: str) -> float:
    return next(hit.time_s or 0 for hit in hits(store, encoder, colour, "image") if hit.path.name == "film.mp4")


@pytest.mark.parametrize("name", ["archive", "archive.tar"])
def test_an_archive_and_a_backup_hold_them(
    filled: Store, encoder: FakeEncoder, photos: Path, tmp_path: Path, name: str
) -> None:
    (filled.path / JOURNAL_FILE).write_bytes(b"x")  # of an index run that goes on meanwhile
    filled.export(tmp_path / name)
    filled.backup(tmp_path / "backup")
    assert not (tmp_path / "backup" / JOURNAL_FILE).exists()
    restore(tmp_path / name, tmp_path / "imported")
    expected = kept(filled)
    assert [len(table) for table in expected] == [4, len(expected[1])]
    assert len(expected[1]) > 1
    for copy in ("imported", "backup"):
        assert contents(tmp_path / copy) == contents(filled.path)
        with Store.open(tmp_path / copy) as store:
            assert kept(store) == expected
            assert store.ingest(photos, encoder).encoded == 0
            assert said(store, encoder) == WORDS
            assert moment(store, encoder, "red") < 8 <= moment(store, encoder, "blue")


@pytest.mark.parametrize(
    ("table", "column", "value", "match"),
    [
        ("about", "keywords", "[1]", "keywords"),
        ("about", "keywords", "[", "damaged"),
        ("about", "keywords", "[" * 100_000, "damaged"),
        ("about", "source", b"../a.json", "leads out"),
        ("frames", "mu", b"\0\0", "not as long"),
        ("frames", "mu", b"\0", "damaged"),
        ("frames", "mu", b"\xff\xff" * 8, "no number"),
        ("frames", "model_id", 9, "damaged"),
    ],
)
def test_an_archive_that_means_harm(
    archive: Path, tmp_path: Path, table: str, column: str, value: object, match: str
) -> None:
    shutil.copytree(archive, tmp_path / "archive")
    path = tmp_path / "archive" / f"{table}.parquet"
    whole = pq.read_table(path)
    held = whole.to_pylist()
    held[0][column] = value
    pq.write_table(pa.Table.from_pylist(held, schema=whole.schema), path)
    with pytest.raises(LibraryCorrupt, match=match):
        restore(seal(tmp_path / "archive"), tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


def test_a_salvaged_catalog_has_them(filled: Store, encoder: FakeEncoder, photos: Path) -> None:
    expected, where = kept(filled), filled.path
    filled.close()
    saved, _ = salvage(where / CATALOG_FILE)
    assert (saved["about"], saved["frames"]) == tuple(len(table) for table in expected)
    with Store.open(where) as store:
        assert kept(store) == expected
        assert store.ingest(photos, encoder).encoded == 0
        assert said(store, encoder) == WORDS


def test_an_excluded_sidecar_is_silent_until_it_is_back(filled: Store, encoder: FakeEncoder, photos: Path) -> None:
    ignore(photos, "*.json")
    filled.ingest(photos, encoder)
    assert said(filled, encoder) == WORDS[2:]
    assert hits(filled, encoder, "red", "image")[0].latitude_deg is None
    (photos / ".mmsearchignore").unlink()
    assert filled.ingest(photos, encoder).encoded == 0
    assert said(filled, encoder) == WORDS


def test_an_excluded_picture_comes_back_with_all_it_said(filled: Store, encoder: FakeEncoder, photos: Path) -> None:
    before = kept(filled)
    ignore(photos, "*.jpg", "*.mp4")
    filled.ingest(photos, encoder)
    assert said(filled, encoder) == []
    (photos / ".mmsearchignore").unlink()
    assert filled.ingest(photos, encoder).encoded == 0
    assert said(filled, encoder) == WORDS
    assert kept(filled) == before


def test_a_folder_that_moved(filled: Store, encoder: FakeEncoder, photos: Path, tmp_path: Path) -> None:
    before = kept(filled)
    photos.rename(tmp_path / "elsewhere")
    assert filled.relocate(photos, tmp_path / "elsewhere") == 3
    assert filled.ingest(tmp_path / "elsewhere", encoder).encoded == 0
    assert kept(filled) == before
    assert said(filled, encoder) == WORDS
    (tmp_path / "elsewhere" / "a.jpg.json").unlink()
    filled.ingest(tmp_path / "elsewhere", encoder)
    assert said(filled, encoder) == WORDS[2:]


@pytest.mark.parametrize("last", [lambda photos: None, lambda photos: (photos / "a.jpg.json").unlink()])
def test_a_pruned_file_leaves_nothing(
    filled: Store, encoder: FakeEncoder, photos: Path, tmp_path: Path, last: Callable[[Path], None]
) -> None:
    (photos / "a.jpg.json").write_text("{")
    assert filled.ingest(photos, encoder).skipped == 1
    for name in ("a.jpg", "film.mp4"):
        (photos / name).unlink()
    last(photos)
    filled.ingest(photos, encoder)
    assert filled.prune().removed == 2
    assert [len(table) for table in kept(filled)] == [1, 0]
    assert said(filled, encoder) == WORDS[2:]
    if not (photos / "a.jpg.json").exists():
        assert filled.errors() == []


def test_moments_of_a_model_change_that_is_taken_up_again(
    filled: Store, encoder: FakeEncoder, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FakeEncoder(name="other", seed=4)
    with crash_at(monkeypatch, 5, after=True), pytest.raises(Crash):
        filled.rebuild(other, batch_size=1)
    models = "SELECT DISTINCT m.name FROM frames f JOIN models m ON m.id = f.model_id ORDER BY m.name"
    assert rows(filled, models) == [("fake",), ("other",)]
    assert moment(filled, encoder, "red") < 8 <= moment(filled, encoder, "blue")  # the old model answers still
    (photos / "film.mp4").write_bytes(film("green", seconds_each=2))
    filled.ingest(photos, encoder)
    assert rows(filled, models) == [("fake",)]
    filled.rebuild(other, batch_size=1)
    assert rows(filled, models) == [("other",)]
    assert moment(filled, other, "green") < 2
