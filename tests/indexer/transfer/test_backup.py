"""A copy of a library in use: whole, of one moment, a library itself; and never over anything that is there."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from indexer.base.errors import LibraryCorrupt, LibraryError, NotPlainFile
from indexer.transfer import backup as module
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.crashing import BATCH, exit_code, ingest, start
from tests.indexer.folders import fill
from tests.indexer.snapshots import contents
from tests.indexer.test_crash import encoded


def test_a_backup_is_the_library(tmp_path: Path, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos)
    ingest(tmp_path / "library", photos, encoder)
    (tmp_path / "library" / "models" / "tuned").mkdir(parents=True)
    (tmp_path / "library" / "models" / "tuned" / "model.json").write_text("{}")
    os.mkfifo(tmp_path / "library" / "pipe")
    with Store.open(tmp_path / "library") as store:
        report = store.backup(tmp_path / "far" / "copy")
    copy = tmp_path / "far" / "copy"
    assert (report.path, report.files) == (copy, 24)
    assert report.size_bytes == sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
    assert sorted(path.name for path in copy.iterdir()) == ["catalog.sqlite", "models", "vectors"]
    assert (copy / "models" / "tuned" / "model.json").read_text() == "{}"
    assert contents(copy) == contents(tmp_path / "library")
    assert len(list((copy / "vectors").iterdir())) == 1
    again = FakeEncoder()
    ingest(copy, photos, again)
    assert again.encoded == 0


def test_a_model_inside_the_library_goes_along(tmp_path: Path, photos: Path) -> None:
    library = tmp_path / "library"
    paint(photos / "a.png", "red")
    ingest(library, photos, FakeEncoder(name=str(library / "models" / "tuned")))
    with Store.open(library) as store:
        store.backup(tmp_path / "copy")
        assert store.model().name == str(library / "models" / "tuned")
    with Store.open(tmp_path / "copy") as store:
        assert store.model().name == str(tmp_path / "copy" / "models" / "tuned")


def test_backups_beside_a_running_writer_are_each_of_one_moment(tmp_path: Path, photos: Path) -> None:
    """Taken while another process indexes: each goes on like a run that was cut off there, to the same end."""
    fill(photos)
    reference = FakeEncoder()
    ingest(tmp_path / "reference", photos, reference)
    library, log, copies = tmp_path / "library", tmp_path / "log", []
    process = start(ingest, library, photos, FakeEncoder(delay_s=0.02, log=log))
    while process.is_alive() and not encoded(log):
        time.sleep(0.005)
    with Store.open(library) as store:
        while process.is_alive():
            count = encoded(log)
            copies.append((count, store.backup(tmp_path / f"copy{len(copies)}").path))
            while process.is_alive() and encoded(log) < count + 2 * BATCH:
                time.sleep(0.005)
    assert exit_code(process) == 0
    assert len({count for count, _ in copies}) >= 3
    for count, copy in copies:
        rest = FakeEncoder()
        ingest(copy, photos, rest)
        assert contents(copy) == contents(tmp_path / "reference")
        assert rest.encoded <= reference.encoded - count + BATCH


def test_an_index_file_that_is_replaced_meanwhile_is_left_out(
    tmp_path: Path, photos: Path, encoder: FakeEncoder
) -> None:
    paint(photos / "a.png", "red")
    ingest(tmp_path / "library", photos, encoder)
    (file,) = (tmp_path / "library" / "vectors").iterdir()
    file.write_bytes(b"another")
    with Store.open(tmp_path / "library") as store:
        store.backup(tmp_path / "copy")
    assert list((tmp_path / "copy" / "vectors").iterdir()) == []
    with Store.open(tmp_path / "copy") as store:
        query = encoder.embed_texts(["red"]).mu[0]
        assert len(store.search(query, 5, fingerprint=encoder.fingerprint)) == 1


def test_nothing_is_written_over_and_nothing_is_left_behind(
    tmp_path: Path, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(photos / "a.png", "red")
    library = tmp_path / "library"
    ingest(library, photos, encoder)
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with Store.open(library) as store:
        for dest, words in (
            (photos, "is there already"),
            (tmp_path / "file", "is there already"),
            (library, "lies in the library"),
            (library / "vectors" / "copy", "lies in the library"),
            (tmp_path / "file" / "below", "Not a directory"),
        ):
            with pytest.raises(LibraryError, match=words):
                store.backup(dest)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(module, "_copy_index", full)
            with pytest.raises(LibraryError, match=r"empty cannot be .* \(No space left on device\)"):
                store.backup(tmp_path / "empty")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "library", "photos"]
        assert store.backup(tmp_path / "empty").files == 1


def test_a_damaged_catalog_is_not_taken_for_a_backup(tmp_path: Path, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos)
    ingest(tmp_path / "library", photos, encoder)
    catalog = tmp_path / "library" / "catalog.sqlite"
    with sqlite3.connect(catalog) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'vectors'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    data = bytearray(catalog.read_bytes())
    data[(page - 1) * size : (page - 1) * size + 64] = b"\xff" * 64
    catalog.write_bytes(data)
    with Store.open(tmp_path / "library") as store, pytest.raises(LibraryCorrupt, match="keep your older backups"):
        store.backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    shutil.rmtree(tmp_path / "library")


def test_links_are_not_followed(tmp_path: Path, photos: Path, encoder: FakeEncoder) -> None:
    """Neither those in the library nor one that somebody put at the destination."""
    library, outside = tmp_path / "library", tmp_path / "outside"
    fill(photos)
    ingest(library, photos, encoder)
    outside.mkdir()
    (outside / "secret").write_text("private")
    (library / "a").symlink_to(outside / "secret")
    (library / "b").hardlink_to(outside / "secret")
    (library / "c").symlink_to(outside)
    (tmp_path / "empty").symlink_to(outside / "nothing")
    with Store.open(library) as store:
        store.backup(tmp_path / "copy")
        with pytest.raises(LibraryError, match="is there already"):
            store.backup(tmp_path / "empty")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"catalog.sqlite", "vectors"}
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_an_index_file_that_is_a_link_is_refused(tmp_path: Path, photos: Path, encoder: FakeEncoder) -> None:
    library = tmp_path / "library"
    fill(photos)
    ingest(library, photos, encoder)
    (library / "vectors").rename(tmp_path / "elsewhere")
    (library / "vectors").symlink_to(tmp_path / "elsewhere")
    with Store.open(library) as store, pytest.raises(NotPlainFile, match="plain files only"):
        store.backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
