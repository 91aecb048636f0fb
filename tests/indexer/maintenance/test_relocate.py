"""Roots that move: every file keeps its row and vector, and what cannot be the same files is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from indexer.base.errors import FolderNotFound, LibraryError, LibraryLocked
from indexer.base.lock import writer_lock
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store


def names(store: Store, encoder: FakeEncoder) -> list[str]:
    query = FakeEncoder().embed_texts(["red"]).mu[0]
    return sorted(str(hit.path) for hit in store.search(query, 100, fingerprint=encoder.fingerprint))


@pytest.fixture
def drive(store: Store, tmp_path: Path, encoder: FakeEncoder) -> Path:
    folder = tmp_path / "old" / "drive"
    for number in range(3):
        paint(folder / "deep" / f"d{number}.png", "red", seed=number)
    (folder / "deep" / "d0.txt").write_text("a red thing")
    store.ingest(folder, encoder)
    return folder


def test_a_root_that_moved_is_found_at_once_and_never_read(
    store: Store, drive: Path, tmp_path: Path, encoder: FakeEncoder
) -> None:
    ids = [store.asset_id_of(drive / "deep" / f"d{number}.png") for number in range(3)]
    new = tmp_path / "new"
    drive.rename(new)
    assert names(store, encoder) == []
    assert store.relocate(drive, new) == 4
    assert names(store, encoder) == [str(new / "deep" / f"d{number}.png") for number in range(3)]
    assert [store.asset_id_of(new / "deep" / f"d{number}.png") for number in range(3)] == ids
    encoded = encoder.encoded
    report = store.ingest(new, encoder)
    assert (report.unchanged, report.added, report.moved, report.offline) == (4, 0, 0, 0)
    assert encoder.encoded == encoded
    assert [root.path for root in store.status().roots] == [new]


def test_a_copy_on_another_disk_with_new_times(store: Store, drive: Path, tmp_path: Path, encoder: FakeEncoder) -> None:
    """`cp -r` gives every file a new time; the content says that it is the same."""
    new = tmp_path / "new"
    shutil.copytree(drive, new, copy_function=shutil.copyfile)
    for file in new.rglob("*.*"):
        os.utime(file, ns=(1, 1))
    store.relocate(drive, new)
    encoded = encoder.encoded
    assert store.ingest(new, encoder).unchanged == 4
    assert encoder.encoded == encoded
    assert drive.exists()


def test_roots_below_move_along(store: Store, drive: Path, tmp_path: Path, encoder: FakeEncoder) -> None:
    paint(drive.parent / "other" / "o.png", "red", seed=9)
    store.ingest(drive.parent / "other", encoder)
    drive.parent.rename(tmp_path / "new")
    assert store.relocate(drive.parent, tmp_path / "new") == 5
    assert [root.path for root in store.status().roots] == [tmp_path / "new" / "drive", tmp_path / "new" / "other"]
    assert len(names(store, encoder)) == 4


def test_a_root_moves_to_where_its_parent_was(store: Store, tmp_path: Path, encoder: FakeEncoder) -> None:
    """a/b becomes a, and its root a/b/b becomes a/b: the new path of one is the old one of the other."""
    top = tmp_path / "a"
    paint(top / "b" / "b" / "x.png", "red", seed=8)
    paint(top / "b" / "y.png", "red", seed=9)
    store.ingest(top / "b" / "b", encoder)
    store.ingest(top / "b", encoder)
    (top / "b").rename(tmp_path / "t")
    top.rmdir()
    (tmp_path / "t").rename(top)
    assert store.relocate(top / "b", top) == 2
    assert [(root.path, root.online) for root in store.status().roots] == [(top, True), (top / "b", True)]
    assert names(store, encoder) == [str(top / "b" / "x.png"), str(top / "y.png")]


def test_what_is_refused(store: Store, drive: Path, tmp_path: Path, encoder: FakeEncoder) -> None:
    strange, other = tmp_path / "strange", tmp_path / "other"
    paint(strange / "s.png", "blue")
    shutil.copytree(drive, other)
    store.ingest(other, encoder)
    for old, new, error, words in (
        (drive, tmp_path / "absent", FolderNotFound, "connect the drive"),
        (drive, strange, LibraryError, "none of the files"),
        (drive, other, LibraryError, "mmsearch prune --offline"),
        (drive, drive, LibraryError, "is where it was"),
        (strange, other, LibraryError, f"indexed are: {drive}"),
        (drive / "deep", strange, LibraryError, "found by 'mmsearch index'"),
    ):
        before = names(store, encoder)
        with pytest.raises(error, match=words):
            store.relocate(old, new)
        assert names(store, encoder) == before
    with writer_lock(store.path), pytest.raises(LibraryLocked):
        store.relocate(drive, strange)
