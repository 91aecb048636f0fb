"""One index run from end to end: first runs, hostile folders, progress, interruption, one writer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryLocked, ModelMismatch
from indexer.base.lock import writer_lock
from indexer.base.types import Progress
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.decoding.samples import png_header
from tests.indexer.ingest.samples import counts, fill, found


def test_a_first_run_and_one_without_changes(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos)
    (photos / "note.md").write_text("grey words")
    assert counts(store.ingest(photos, encoder)) == {"added": 6, "encoded": 6}
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 6}
    assert encoder.encoded == 6
    assert len(found(store, encoder)) == 6


def test_an_empty_folder(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    assert counts(store.ingest(photos, encoder)) == {}
    assert counts(store.ingest(photos, encoder)) == {}
    assert found(store, encoder) == []
    paint(photos / "a.jpg")
    assert counts(store.ingest(photos, encoder)) == {"added": 1, "encoded": 1}


def test_hostile_folder(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    """One of everything that ends other tools: each is one recorded skip, and the good file is found."""
    paint(photos / "good.jpg", "red", seed=1)
    (photos / "corrupt.jpg").write_bytes((photos / "good.jpg").read_bytes()[:200])
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("words")
    (photos / "loop").symlink_to(photos)
    os.mkfifo(photos / "pipe.png")
    (photos / "bomb.png").write_bytes(png_header(30_000, 30_000))
    assert counts(store.ingest(photos, encoder)) == {"added": 1, "skipped": 6, "encoded": 1}
    assert {error.path.name for error in store.errors()} == {
        "corrupt.jpg", "empty.jpg", "text.jpg", "loop", "pipe.png", "bomb.png"
    }  # fmt: skip
    assert all("\n" not in error.reason for error in store.errors())


def test_names_that_are_not_utf8_survive(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    name = os.fsdecode(b"caf\xe9 \xff.jpg")
    shutil.copy(paint(photos / "a.jpg", "red"), photos / name)
    paint(photos / "a.jpg", "blue")
    store.ingest(photos, encoder)
    assert found(store, encoder)[0] == name
    query = encoder.embed_texts(["red"]).mu[0]
    hit = store.search(query, 1, fingerprint=encoder.fingerprint)[0]
    assert hit.path.read_bytes()
    assert store.asset_id_of(photos / name) == hit.asset_id
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 2}


def test_progress_tells_every_file(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 3)
    (photos / "bad.jpg").write_text("x")
    store.ingest(photos, encoder)
    paint(photos / "p9.jpg", "blue")
    beats: list[Progress] = []
    store.ingest(photos, encoder, progress=beats.append)
    assert beats[0].total is None
    assert [(beat.done, beat.total, beat.skipped) for beat in beats if beat.total] == [(4, 5, 1), (5, 5, 1)]
    assert beats[-1].path == "p9.jpg"


def test_another_model_is_refused(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 1)
    store.ingest(photos, encoder)
    other = FakeEncoder(name="other", seed=9)
    with pytest.raises(ModelMismatch) as caught:
        store.ingest(photos, other)
    for part in ("'fake'", "'other'", "--library OTHER", "mmsearch rebuild --model", encoder.fingerprint[:12]):
        assert part in str(caught.value)
    with pytest.raises(ModelMismatch):
        store.search(np.zeros(16, np.float32), 1, fingerprint=other.fingerprint)
    with pytest.raises(ModelMismatch):
        store.posterior_of(photos / "p0.jpg", other.fingerprint)


def test_one_writer(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 1)
    with writer_lock(store.path), pytest.raises(LibraryLocked) as caught:
        store.ingest(photos, encoder)
    assert f"process {os.getpid()} on " in str(caught.value)
    assert store.ingest(photos, encoder).added == 1


def test_interruption_keeps_what_is_committed(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 12)

    class Interrupted(FakeEncoder):
        def encode_images(self, batch: np.ndarray) -> object:
            if len(self.image_batches) == 2:
                raise KeyboardInterrupt
            return super().encode_images(batch)

    first = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        store.ingest(photos, first, batch_size=4)
    assert len(found(store, first)) == 8
    assert counts(store.ingest(photos, encoder, batch_size=4)) == {"added": 4, "unchanged": 8, "encoded": 4}


def test_the_library_inside_the_folder_is_not_indexed(photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 1)
    with Store.open(photos / "library", create=True) as store:
        store.ingest(photos, encoder)
        (photos / "library" / "stray.txt").write_text("words")
        assert counts(store.ingest(photos, encoder)) == {"unchanged": 1}
