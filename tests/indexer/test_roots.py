"""Folders that vanish, empty, change disks and come back: their files hide, and return without encoding."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import update

from indexer.schema import roots
from indexer.store import Store
from tests.fakes import FakeEncoder, paint


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


def test_the_same_disk_under_another_number(store: Store, two: tuple[Path, Path], encoder: FakeEncoder) -> None:
    drive, _ = two
    set_device(store, drive, 1)
    assert len(names(store, encoder)) == 4
    assert store.ingest(drive, encoder).unchanged == 3
    with store._catalog.begin() as connection:
        device = connection.execute(roots.select().where(roots.c.path == str(drive))).one().device
    assert device == os.stat(drive).st_dev


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
