"""What has changed since the last run is found by name, size and time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from indexer.catalog.schema import assets
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.ingest.samples import counts, fill, found


def test_a_changed_file_is_updated(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.jpg", "red")
    paint(photos / "b.jpg", "green")
    store.ingest(photos, encoder)
    before = store.asset_id_of(photos / "a.jpg")
    paint(photos / "a.jpg", "blue", size=(64, 40))
    assert counts(store.ingest(photos, encoder)) == {"updated": 1, "unchanged": 1, "encoded": 1}
    assert store.asset_id_of(photos / "a.jpg") == before
    assert found(store, encoder, "blue")[0] == "a.jpg"
    assert len(found(store, encoder)) == 2


def test_many_changes_at_once_are_compared_by_the_page(
    store: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.catalog.assets.PAGE", 2)
    fill(photos, 7)
    store.ingest(photos, encoder)
    for number in range(5):
        os.utime(photos / f"p{number}.jpg", ns=(1, 10**18))
    paint(photos / "p0.jpg", "blue", size=(64, 40))
    paint(photos / "a.jpg", "green")
    seen: list[str] = []
    report = store.ingest(photos, encoder, progress=lambda one: seen.append(one.path))
    assert counts(report) == {"added": 1, "updated": 1, "unchanged": 6, "encoded": 2}  # touched files by their hashes
    assert [path for path in seen if path] == ["a.jpg", *(f"p{number}.jpg" for number in range(5))]


def test_a_touched_file_is_unchanged(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 2)
    store.ingest(photos, encoder)
    os.utime(photos / "p0.jpg", ns=(1, 10**18))
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 2}
    with store._catalog.begin() as connection:
        assert 10**18 in connection.scalars(select(assets.c.mtime_ns)).all()
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 2}


def test_missing_files_hide_and_return_without_encoding(
    store: Store, photos: Path, encoder: FakeEncoder, tmp_path: Path
) -> None:
    fill(photos, 3)
    store.ingest(photos, encoder)
    before = store.asset_id_of(photos / "p1.jpg")
    shutil.move(photos / "p1.jpg", tmp_path / "kept.jpg")
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 2}
    assert sorted(found(store, encoder)) == ["p0.jpg", "p2.jpg"]
    assert store.status().missing == 1
    shutil.move(tmp_path / "kept.jpg", photos / "p1.jpg")
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 3}
    assert store.asset_id_of(photos / "p1.jpg") == before
    assert len(found(store, encoder)) == 3
    assert encoder.images_encoded == 3


def test_files_below_an_unreadable_folder_are_kept(
    store: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(photos / "shut" / "a.jpg", "red", seed=1)
    paint(photos / "open.jpg", "red", seed=2)
    store.ingest(photos, encoder)
    real = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert counts(store.ingest(photos, encoder)) == {"unchanged": 1, "skipped": 1}
        assert [error.path.name for error in store.errors()] == ["shut"]
    assert len(found(store, encoder)) == 2
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 2}
    assert store.errors() == []
