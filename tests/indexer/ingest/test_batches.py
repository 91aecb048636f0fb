"""Batches of loaded files are stored: new, moved, swapped, copied files keep ids and vectors."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from indexer.catalog.schema import assets, vectors
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.ingest.samples import counts, fill, found


def test_batches_are_full(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 10)
    for number in range(7):
        (photos / f"t{number}.md").write_text(f"words {number}")
    paint(photos / "p3b.jpg", "red", seed=3)  # the content of p3 again: no hole in a batch
    store.ingest(photos, encoder, batch_size=4)
    assert encoder.image_batches == [4, 4, 2]
    assert encoder.text_batches == [4, 3]


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
