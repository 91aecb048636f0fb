"""Loading a file: broken and unreadable files are recorded, and retried when they change."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from indexer.files.opening import PhotoFolder
from indexer.store import Store
from tests.fakes import FakeEncoder, paint
from tests.indexer.ingest.samples import counts, fill, found


def test_broken_files_are_recorded_and_retried_only_when_they_change(
    store: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(photos, 1)
    (photos / "words.jpg").write_text("not a picture")
    (photos / "empty.png").touch()
    (photos / "empty.txt").touch()
    (photos / "nul.txt").write_bytes(b"a\0b")
    (photos / "cut.jpg").write_bytes((photos / "p0.jpg").read_bytes()[:-200])
    assert counts(store.ingest(photos, encoder)) == {"added": 1, "skipped": 5, "encoded": 1}
    reasons = {error.path.name: error.reason for error in store.errors()}
    assert set(reasons) == {"words.jpg", "empty.png", "empty.txt", "nul.txt", "cut.jpg"}
    assert reasons["empty.png"] == "empty file"
    opened: list[str] = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: (opened.append("x"), real(*a, **k))[1])
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 1, "skipped": 5}
    assert not opened
    paint(photos / "words.jpg", "green")
    assert counts(store.ingest(photos, encoder)) == {"updated": 1, "unchanged": 1, "skipped": 4, "encoded": 1}
    assert found(store, encoder, "green")[0] == "words.jpg"
    assert len(store.errors()) == 4


def test_a_file_that_breaks_is_no_longer_found(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 2)
    store.ingest(photos, encoder)
    whole = (photos / "p0.jpg").read_bytes()
    (photos / "p0.jpg").write_bytes(b"")
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 1, "skipped": 1}
    assert found(store, encoder) == ["p1.jpg"]
    (photos / "p0.jpg").write_bytes(whole)
    assert counts(store.ingest(photos, encoder)) == {"updated": 1, "unchanged": 1, "encoded": 1}
    assert len(found(store, encoder)) == 2


def test_a_file_that_cannot_be_opened_is_tried_again_and_keeps_its_vector(
    store: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(photos, 2)
    store.ingest(photos, encoder)
    os.utime(photos / "p0.jpg", ns=(1, 1))
    real = PhotoFolder.open

    def refuse(self: PhotoFolder, rel_path: str) -> object:
        if rel_path == "p0.jpg":
            raise PermissionError(13, "Permission denied")
        return real(self, rel_path)

    with monkeypatch.context() as patch:
        patch.setattr(PhotoFolder, "open", refuse)
        assert counts(store.ingest(photos, encoder)) == {"unchanged": 1, "skipped": 1, "postponed": 1}
        assert counts(store.ingest(photos, encoder)) == {"unchanged": 1, "skipped": 1, "postponed": 1}
    assert [error.reason for error in store.errors()] == ["cannot be read (Permission denied)"]
    assert found(store, encoder) == ["p1.jpg"]
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 2}
    assert len(found(store, encoder)) == 2
    assert encoder.images_encoded == 2


def test_identical_bytes_under_both_kinds_of_name(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    (photos / "a.txt").write_text("red words")
    shutil.copy(photos / "a.txt", photos / "b.jpg")
    assert counts(store.ingest(photos, encoder)) == {"added": 1, "skipped": 1, "encoded": 1}
