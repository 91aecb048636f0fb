"""What a run does about files that are new, changed, touched, moved, copied, gone, back, or broken."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from indexer.base.errors import FolderNotFound, LibraryLocked, ModelMismatch
from indexer.base.lock import writer_lock
from indexer.base.types import IndexReport, Progress
from indexer.catalog.schema import assets, vectors
from indexer.store import Store
from tests.fakes import FakeEncoder, paint
from tests.indexer.decoding.samples import png_header


def counts(report: IndexReport) -> dict[str, int]:
    """The counts that are not zero."""
    return {name: int(str(value)) for name, value in report.to_dict().items() if value and name != "seconds"}


def found(store: Store, encoder: FakeEncoder, words: str = "red", **options: object) -> list[str]:
    query = encoder.embed_texts([words]).mu[0]
    return [hit.path.name for hit in store.search(query, 100, fingerprint=encoder.fingerprint, **options)]


def fill(photos: Path, count: int = 5) -> None:
    for number in range(count):
        paint(photos / f"p{number}.jpg", "red", seed=number)


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


def test_batches_are_full(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 10)
    for number in range(7):
        (photos / f"t{number}.md").write_text(f"words {number}")
    paint(photos / "p3b.jpg", "red", seed=3)  # the content of p3 again: no hole in a batch
    store.ingest(photos, encoder, batch_size=4)
    assert encoder.image_batches == [4, 4, 2]
    assert encoder.text_batches == [4, 3]


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


def test_moved_files_keep_id_and_vector(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos)
    store.ingest(photos, encoder)
    before = store.asset_id_of(photos / "p1.jpg")
    (photos / "deep").mkdir()
    (photos / "p1.jpg").rename(photos / "deep" / "renamed.jpg")
    assert counts(store.ingest(photos, encoder)) == {"moved": 1, "unchanged": 4}
    assert store.asset_id_of(photos / "deep" / "renamed.jpg") == before
    assert store.asset_id_of(photos / "p1.jpg") is None
    assert sorted(found(store, encoder)) == ["p0.jpg", "p2.jpg", "p3.jpg", "p4.jpg", "renamed.jpg"]
    assert encoder.images_encoded == 5


def test_files_that_swap_names(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.jpg", "red")
    paint(photos / "b.jpg", "blue", size=(50, 50))
    store.ingest(photos, encoder)
    (photos / "a.jpg").rename(photos / "c.jpg")
    (photos / "b.jpg").rename(photos / "a.jpg")
    (photos / "c.jpg").rename(photos / "b.jpg")
    report = store.ingest(photos, encoder)
    assert report.encoded == 0
    assert found(store, encoder, "blue") == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("batch_size", [1, 32])
def test_a_file_whose_old_name_has_new_content(
    store: Store, photos: Path, encoder: FakeEncoder, batch_size: int
) -> None:
    for number, new in enumerate([b"", paint(photos / "blue.jpg", "blue").read_bytes()]):
        paint(photos / f"a{number}.jpg", "red", seed=number)
        store.ingest(photos, encoder, batch_size=batch_size)
        (photos / f"a{number}.jpg").rename(photos / f"z{number}.jpg")
        (photos / f"a{number}.jpg").write_bytes(new)
    encoded = encoder.images_encoded
    store.ingest(photos, encoder, batch_size=batch_size)
    assert encoder.images_encoded == encoded
    assert found(store, encoder)[:2] == ["z0.jpg", "z1.jpg"] or found(store, encoder)[:2] == ["z1.jpg", "z0.jpg"]
    with store._catalog.begin() as connection:
        assert connection.scalars(select(assets.c.width_px).where(assets.c.state == "live")).all() == [48] * 4


def test_moving_between_roots(store: Store, photos: Path, encoder: FakeEncoder, tmp_path: Path) -> None:
    fill(photos, 3)
    other = tmp_path / "other"
    other.mkdir()
    store.ingest(photos, encoder)
    shutil.move(photos / "p0.jpg", other / "p0.jpg")
    assert counts(store.ingest(other, encoder)) == {"moved": 1}
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 2}
    assert len(found(store, encoder)) == 3


def test_copies_share_the_work_and_are_files_of_their_own(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 2)
    shutil.copy(photos / "p0.jpg", photos / "copy.jpg")
    assert counts(store.ingest(photos, encoder)) == {"added": 3, "encoded": 2}
    shutil.copy(photos / "p0.jpg", photos / "later.jpg")
    assert counts(store.ingest(photos, encoder)) == {"added": 1, "unchanged": 3}
    assert sorted(found(store, encoder)) == ["copy.jpg", "later.jpg", "p0.jpg", "p1.jpg"]
    with store._catalog.begin() as connection:
        sizes = connection.execute(select(assets.c.width_px, assets.c.height_px)).all()
    assert [tuple(size) for size in sizes] == [(48, 40)] * 4
    (photos / "p0.jpg").unlink()
    store.ingest(photos, encoder)
    assert sorted(found(store, encoder)) == ["copy.jpg", "later.jpg", "p1.jpg"]


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
    real = Path.open

    def refuse(self: Path, *args: object, **options: object) -> object:
        if self.name == "p0.jpg":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        assert counts(store.ingest(photos, encoder)) == {"unchanged": 1, "skipped": 1}
        assert counts(store.ingest(photos, encoder)) == {"unchanged": 1, "skipped": 1}
    assert [error.reason for error in store.errors()] == ["cannot be read (Permission denied)"]
    assert found(store, encoder) == ["p1.jpg"]
    assert counts(store.ingest(photos, encoder)) == {"unchanged": 2}
    assert len(found(store, encoder)) == 2
    assert encoder.images_encoded == 2


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


def test_the_row_of_a_photo(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Box"
    Image.new("RGB", (64, 32), "red").save(photos / "a.jpg", exif=exif)
    store.ingest(photos, encoder)
    with store._catalog.begin() as connection:
        row = connection.execute(select(assets)).one()
        vector = connection.execute(select(vectors)).one()
    assert (row.width_px, row.height_px, row.camera, row.state) == (32, 64, "Box", "live")
    assert row.size_bytes == (photos / "a.jpg").stat().st_size
    assert len(row.content_hash) == 20
    image = Image.open(photos / "a.jpg").convert("RGB").transpose(Image.Transpose.ROTATE_270)
    expected = encoder.embed_images([image])
    np.testing.assert_allclose(np.frombuffer(vector.mu, np.float16), expected.mu[0], rtol=1e-3, atol=0.02)
    np.testing.assert_allclose(np.frombuffer(vector.logvar, np.float16), expected.logvar[0], rtol=1e-3, atol=0.02)


def test_a_part_of_a_root_and_roots_in_roots(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a" / "1.jpg", "red", seed=1)
    paint(photos / "b" / "2.jpg", "red", seed=2)
    store.ingest(photos / "a", encoder)
    assert counts(store.ingest(photos, encoder)) == {"added": 1, "unchanged": 1, "encoded": 1}
    paint(photos / "b" / "3.jpg", "red", seed=3)
    (photos / "a" / "1.jpg").unlink()
    assert counts(store.ingest(photos / "b", encoder)) == {"added": 1, "unchanged": 1, "encoded": 1}
    assert store.status().missing == 0  # 1.jpg lies outside the part that was looked at
    assert [root.path for root in store.status().roots] == [photos, photos / "a"]


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


@pytest.mark.parametrize("name", ["absent", "file.txt"])
def test_no_such_folder(store: Store, tmp_path: Path, encoder: FakeEncoder, name: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(FolderNotFound, match="mmsearch index"):
        store.ingest(tmp_path / name, encoder)
    assert store.status().roots == ()


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


def test_identical_bytes_under_both_kinds_of_name(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    (photos / "a.txt").write_text("red words")
    shutil.copy(photos / "a.txt", photos / "b.jpg")
    assert counts(store.ingest(photos, encoder)) == {"added": 1, "skipped": 1, "encoded": 1}
