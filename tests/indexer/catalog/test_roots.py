"""Folders that vanish, empty, change disks and come back: their files hide, and return without encoding."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Connection, update

from indexer.catalog.roots import Root, some_are_there
from indexer.catalog.schema import roots
from indexer.files.roots import device_of
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.catalog.conftest import AddFile


def test_any_of_the_files(connection: Connection, root: Root, add_file: AddFile) -> None:
    assert some_are_there(connection, root), "a root without files"
    add_file("absent.jpg")
    assert not some_are_there(connection, root)
    add_file("sub/link.jpg")
    assert not some_are_there(connection, root)
    (root.path / "sub").mkdir(parents=True)
    (root.path / "sub" / "link.jpg").symlink_to("nowhere")
    assert some_are_there(connection, root), "a broken link is a file that is there"


def names(store: Store, encoder: FakeEncoder) -> list[str]:
    query = FakeEncoder().embed_texts(["red"]).mu[0]
    return sorted(hit.path.name for hit in store.search(query, 100, fingerprint=encoder.fingerprint))


@pytest.fixture
def two(store: Store, tmp_path: Path, encoder: FakeEncoder) -> tuple[Path, Path]:
    drive, home = tmp_path / "drive", tmp_path / "home"
    for number in range(3):
        paint(drive / f"d{number}.jpg", "red", seed=number)
    paint(home / "h.jpg", "blue")
    store.ingest(drive, encoder)
    store.ingest(home, encoder)
    return drive, home


def test_a_folder_that_vanishes_hides(store: Store, two: tuple[Path, Path], encoder: FakeEncoder) -> None:
    drive, home = two
    drive.rename(drive.with_name("unplugged"))
    assert names(store, encoder) == ["h.jpg"]
    store.ingest(home, encoder)
    status = store.status()
    assert (status.images, status.offline, status.missing) == (1, 3, 0)
    assert [(root.path, root.online, root.reason, root.files) for root in status.roots] == [
        (drive, False, "is not there", 3), (home, True, None, 1)
    ]  # fmt: skip
    drive.with_name("unplugged").rename(drive)
    assert len(names(store, encoder)) == 4
    assert store.ingest(drive, encoder).unchanged == 3
    assert encoder.images_encoded == 4


def test_an_empty_folder_of_the_same_name_loses_nothing(
    store: Store, two: tuple[Path, Path], encoder: FakeEncoder
) -> None:
    """A mount point without its drive is an empty folder; indexing it must not empty the library."""
    drive, _ = two
    drive.rename(drive.with_name("unplugged"))
    drive.mkdir()
    report = store.ingest(drive, encoder)
    assert (report.added, report.unchanged, report.encoded) == (0, 0, 0)
    assert names(store, encoder) == ["h.jpg"]
    assert store.status().offline == 3
    drive.rmdir()
    drive.with_name("unplugged").rename(drive)
    assert len(names(store, encoder)) == 4
    assert store.ingest(drive, encoder).unchanged == 3
    assert encoder.images_encoded == 4


def set_device(store: Store, path: Path, device: int) -> None:
    with store._catalog.begin() as connection:
        connection.execute(update(roots).where(roots.c.path == str(path)).values(device=device))


def test_another_disk_under_the_same_name(store: Store, two: tuple[Path, Path], encoder: FakeEncoder) -> None:
    drive, _ = two
    drive.rename(drive.with_name("unplugged"))
    paint(drive / "stranger.jpg", "red", seed=9)
    set_device(store, drive, 1)
    assert names(store, encoder) == ["h.jpg"]
    assert store.ingest(drive, encoder).added == 0
    assert "another device" in str(store.status().roots[0].reason)


def test_another_disk_with_the_same_number(
    store: Store, two: tuple[Path, Path], encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next stick in the same socket: the system gives it the number of the last one."""
    drive, _ = two
    real, number = os.statvfs, os.stat(drive).st_dev
    own = drive.rename(drive.with_name("unplugged"))
    paint(drive / "stranger.jpg", "red", seed=9)
    assert os.stat(drive).st_dev == number
    larger = real(drive).f_blocks + 1

    def disk_of(path: Path) -> object:
        found = real(path)
        fields = {name: getattr(found, name) for name in ("f_fsid", "f_frsize", "f_blocks")}
        return SimpleNamespace(**fields | ({"f_blocks": larger} if drive in (path, *Path(path).parents) else {}))

    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", disk_of)
        assert names(store, encoder) == ["h.jpg"]
        assert store.ingest(drive, encoder).added == 0
        assert "another device" in str(store.status().roots[0].reason)
        assert store.prune().removed == 0
    (drive / "stranger.jpg").unlink()
    drive.rmdir()
    own.rename(drive)
    assert store.ingest(drive, encoder).unchanged == 3
    assert encoder.images_encoded == 4


def test_files_exchanged_between_two_folders_in_two_runs(
    store: Store, two: tuple[Path, Path], encoder: FakeEncoder
) -> None:
    """In one run nothing would be encoded. In two, one of them is, once: its vector left with the row it had."""
    drive, home = two
    (drive / "d0.jpg").rename(home / "t.jpg")
    (home / "h.jpg").rename(drive / "d0.jpg")
    (home / "t.jpg").rename(home / "h.jpg")
    assert store.ingest(drive, encoder).encoded == 0
    assert store.ingest(home, encoder).encoded == 1
    query = encoder.embed_texts(["blue"]).mu[0]
    assert store.search(query, 1, fingerprint=encoder.fingerprint)[0].path == drive / "d0.jpg"
    assert names(store, encoder) == ["d0.jpg", "d1.jpg", "d2.jpg", "h.jpg"]


def test_what_is_gone_from_one_folder_is_known_in_another(
    store: Store, two: tuple[Path, Path], encoder: FakeEncoder
) -> None:
    drive, home = two
    (drive / "d0.jpg").rename(home / "away.jpg")
    store.ingest(drive, encoder)  # which misses it
    report = store.ingest(home, encoder)
    assert (report.moved, report.encoded, encoder.images_encoded) == (1, 0, 4)


def test_the_same_disk_under_another_number(store: Store, two: tuple[Path, Path], encoder: FakeEncoder) -> None:
    drive, _ = two
    set_device(store, drive, 1)
    assert len(names(store, encoder)) == 4
    assert store.ingest(drive, encoder).unchanged == 3
    with store._catalog.begin() as connection:
        device = connection.execute(roots.select().where(roots.c.path == str(drive))).one().device
    assert device == device_of(drive)


def test_a_file_that_left_an_offline_root_is_a_copy(store: Store, two: tuple[Path, Path], encoder: FakeEncoder) -> None:
    drive, home = two
    (home / "copy.jpg").write_bytes((drive / "d0.jpg").read_bytes())
    drive.rename(drive.with_name("unplugged"))
    report = store.ingest(home, encoder)
    assert (report.added, report.moved, report.encoded) == (1, 0, 0)
    drive.with_name("unplugged").rename(drive)
    assert names(store, encoder) == ["copy.jpg", "d0.jpg", "d1.jpg", "d2.jpg", "h.jpg"]


def test_a_drive_mounted_inside_a_root(store: Store, tmp_path: Path, encoder: FakeEncoder) -> None:
    home, drive = tmp_path / "home", tmp_path / "home" / "drive"
    paint(home / "h.jpg", "red", seed=1)
    paint(drive / "d.jpg", "red", seed=2)
    store.ingest(drive, encoder)
    store.ingest(home, encoder)
    (drive / "d.jpg").rename(tmp_path / "d.jpg")
    store.ingest(home, encoder)
    assert names(store, encoder) == ["h.jpg"]
    assert (store.status().missing, store.status().offline) == (0, 1)
    (tmp_path / "d.jpg").rename(drive / "d.jpg")
    assert names(store, encoder) == ["d.jpg", "h.jpg"]


def test_a_root_reached_by_a_link_keeps_its_name(store: Store, tmp_path: Path, encoder: FakeEncoder) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    paint(real / "a.jpg", "red")
    link.symlink_to(real)
    store.ingest(link, encoder)
    assert [root.path for root in store.status().roots] == [link]
    assert store.asset_id_of(link / "a.jpg") is not None
    link.unlink()
    assert names(store, encoder) == []


def test_the_report_counts_what_is_offline(store: Store, two: tuple[Path, Path], encoder: FakeEncoder) -> None:
    """The drive's folder gone, or empty, or holding only a bin: the same answer, and nothing is encoded again."""
    drive, home = two
    away = drive.with_name("unplugged")
    drive.rename(away)
    for prepare in (lambda: None, drive.mkdir, (drive / ".Trash-1000").mkdir, (drive / "lost+found").mkdir):
        prepare()
        for folder in (drive, drive / "deep", home.parent):
            if folder == home.parent and not drive.exists():
                continue  # the library lies there too; only what is below the folder counts
            report = store.ingest(folder, encoder)
            assert report.offline == (0 if folder == drive / "deep" else 3), (prepare, folder)
            assert report.encoded == 0
    assert store.ingest(home, encoder).offline == 0
    for name in (".Trash-1000", "lost+found"):
        (drive / name).rmdir()
    drive.rmdir()
    away.rename(drive)
    report = store.ingest(drive, encoder)
    assert (report.offline, report.unchanged, report.encoded) == (0, 3, 0)


def test_a_known_disk_whose_first_folder_was_thrown_away(store: Store, tmp_path: Path, encoder: FakeEncoder) -> None:
    """It comes back under another device number, and more files are gone than are looked for at first."""
    drive = tmp_path / "drive"
    for number in range(70):
        (drive / "a").mkdir(parents=True, exist_ok=True)
        (drive / "a" / f"{number:02}.txt").write_text(f"words {number}")
    paint(drive / "z" / "z.png", "red")
    store.ingest(drive, encoder)
    for file in (drive / "a").iterdir():
        file.unlink()
    set_device(store, drive, 1)
    assert store.ingest(drive, encoder).unchanged == 1
    assert store.status().missing == 70


def test_a_name_that_changes_case_where_case_makes_no_difference(
    store: Store, tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the old spelling still leads to the file. A link stands for that here; the scan lists the new name."""
    folder = tmp_path / "folder"
    paint(folder / "a.jpg", "red")
    store.ingest(folder, encoder)
    before = store.asset_id_of(folder / "a.jpg")
    (folder / "a.jpg").rename(folder / "A.jpg")
    (folder / "a.jpg").symlink_to(folder / "A.jpg")
    report = store.ingest(folder, encoder)
    assert (report.moved, report.added, report.encoded) == (1, 0, 0)
    assert store.asset_id_of(folder / "A.jpg") == before
    assert names(store, encoder) == ["A.jpg"]


def test_whole_folders_swap_between_roots(store: Store, tmp_path: Path, encoder: FakeEncoder) -> None:
    """What one root's rows held when other content took them turns up in the next root of the same run."""
    one, two = tmp_path / "both" / "one", tmp_path / "both" / "two"
    for number in range(3):
        paint(one / "x" / f"{number}.png", "red", seed=number)
        paint(two / "x" / f"{number}.png", "blue", seed=10 + number)
    (one / "x" / "0.txt").write_text("the first")
    store.ingest(one, encoder)
    store.ingest(two, encoder)
    encoded = encoder.encoded
    (one / "x").rename(tmp_path / "t")
    (two / "x").rename(one / "x")
    (tmp_path / "t").rename(two / "x")
    report = store.ingest(one.parent, encoder)
    assert (report.encoded, report.moved, report.updated) == (0, 1, 6)
    assert encoder.encoded == encoded
    red = FakeEncoder().embed_texts(["red"]).mu[0]
    best = store.search(red, 3, fingerprint=encoder.fingerprint)
    assert {hit.path.parent for hit in best} == {two / "x"}
    assert store.status().captions == 1
