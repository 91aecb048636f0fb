"""The rows behind hits: typed, alike over both kinds of connection, and only of what is there."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.base.types import HIDDEN, Model
from indexer.catalog import hits
from indexer.catalog.reader import CatalogReader, read
from indexer.catalog.roots import known_targets
from indexer.search.search import CATALOG_FILE
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store

EXIF, TAKEN, MODEL = 0x8769, 0x9003, 0x0110


@pytest.fixture
def filled(store: Store, photos: Path, encoder: FakeEncoder) -> Store:
    for number, name in enumerate(("a.jpg", "sub/b.jpg", "sub2/c.jpg")):
        paint(photos / name, ("red", "green", "blue")[number], seed=number)
    exif = Image.Exif()
    exif.get_ifd(EXIF)[TAKEN] = "2019:05:31 18:00:00"
    exif[MODEL] = "X100"
    with Image.open(photos / "a.jpg") as picture:
        picture.copy().save(photos / "a.jpg", exif=exif)
    (photos / "a.txt").write_text("a red wall")
    (photos / "note.md").write_text("words alone")
    (photos / "captions.csv").write_text("image,caption\nsub/b.jpg,a meadow\n")
    store.ingest(photos, encoder)
    return store


@pytest.fixture
def model(filled: Store) -> Model:
    found = filled.model()
    assert found is not None
    return found


def rows_of(store: Store) -> list[hits.StoredHit]:
    with store._catalog.begin() as connection:
        ids = [number for (number,) in read(connection, "SELECT id FROM vectors WHERE kind <> :h", h=HIDDEN)]
        return list(hits.hit_rows(connection, sorted(ids)).values())


def test_a_file_its_caption_and_a_text(filled: Store, photos: Path) -> None:
    rows = rows_of(filled)
    (photo,) = (row for row in rows if row.path.name == "a.jpg" and not row.is_caption)
    assert (photo.modality, photo.text) == ("image", None)
    assert photo.path == photos / "a.jpg"
    assert (photo.taken_at, photo.camera, photo.latitude_deg) == (datetime(2019, 5, 31, 18), "X100", None)
    (caption,) = (row for row in rows if row.text == "a meadow")
    assert (caption.is_caption, caption.modality, caption.path) == (True, "text", photos / "sub" / "b.jpg")
    (note,) = (row for row in rows if row.path.name == "note.md")
    assert (note.is_caption, note.modality, note.text) == (False, "text", "words alone")


def test_both_kinds_of_connection_give_the_same_rows(filled: Store, photos: Path, model: Model) -> None:
    reader = CatalogReader.open(filled.path / CATALOG_FILE)
    assert reader is not None
    with reader.begin() as left, filled._catalog.begin() as right:
        ids = [number for (number,) in read(left, "SELECT id FROM vectors")]
        assert hits.hit_rows(left, ids) == hits.hit_rows(right, ids)
        one, other = (hits.indexed_file(connection, model, photos / "a.jpg") for connection in (left, right))
        assert one is not None
        assert other is not None
        assert (one.asset_id, one.modality) == (other.asset_id, other.modality)
        np.testing.assert_array_equal(one.posterior.mu, other.posterior.mu)
        for ask in (
            lambda one: hits.vectors_within(one, model, None, date(2019, 5, 31), date(2019, 5, 31)),
            lambda one: hits.vectors_within(one, model, known_targets(one, photos / "sub"), None, None),
            lambda one: hits.vectors_of_files(one, model, [1, 2, 3]),
            lambda one: hits.vectors_of_offline_roots(one, model),
        ):
            np.testing.assert_array_equal(ask(left), ask(right))
    reader.close()


def names(store: Store, ids: np.ndarray) -> set[str]:
    with store._catalog.begin() as connection:
        return {row.path.name for row in hits.hit_rows(connection, ids.tolist()).values()}


def test_vectors_below_a_folder_are_not_those_of_its_neighbour(filled: Store, photos: Path, model: Model) -> None:
    with filled._catalog.begin() as connection:
        below = hits.vectors_within(connection, model, known_targets(connection, photos / "sub"), None, None)
        everything = hits.vectors_within(connection, model, None, None, None)
        nothing = hits.vectors_within(connection, model, None, date(2019, 6, 1), None)
    assert names(filled, below) == {"b.jpg"}
    assert len(below) == 2  # the photo and its caption
    assert names(filled, everything) >= {"a.jpg", "b.jpg", "c.jpg", "note.md"}
    assert (np.diff(everything) > 0).all()
    assert len(nothing) == 0


def test_vectors_of_files_leave_their_captions(filled: Store, photos: Path, model: Model) -> None:
    with filled._catalog.begin() as connection:
        photo = hits.indexed_file(connection, model, photos / "sub" / "b.jpg")
        assert photo is not None
        found = hits.vectors_of_files(connection, model, [photo.asset_id])
        assert len(hits.vectors_of_files(connection, model, [])) == 0
        assert not any(row.is_caption for row in hits.hit_rows(connection, found.tolist()).values())


def test_vectors_of_a_folder_that_is_gone(filled: Store, photos: Path, model: Model) -> None:
    with filled._catalog.begin() as connection:
        assert len(hits.vectors_of_offline_roots(connection, model)) == 0
    photos.rename(photos.with_name("away"))
    with filled._catalog.begin() as connection:
        assert names(filled, hits.vectors_of_offline_roots(connection, model)) >= {"a.jpg", "b.jpg", "c.jpg"}


def test_a_file_by_its_path_and_whether_it_changed(filled: Store, photos: Path, model: Model, tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to(photos / "a.jpg")
    gone = photos / "sub2" / "c.jpg"
    gone.unlink()
    with filled._catalog.begin() as connection:
        file = hits.indexed_file(connection, model, photos / "a.jpg")
        linked = hits.indexed_file(connection, model, tmp_path / "link.jpg")
        assert file is not None
        assert linked is not None
        assert (linked.asset_id, linked.modality) == (file.asset_id, file.modality)
        for unknown in ("none.jpg", "captions.csv", "."):
            assert hits.indexed_file(connection, model, photos / unknown) is None
        assert file.modality == "image"
        assert file.posterior is not None
        assert linked.posterior is not None
        os.utime(photos / "a.jpg", ns=(1, 1))
        for path in (photos / "a.jpg", tmp_path / "link.jpg", gone):
            changed = hits.indexed_file(connection, model, path)
            assert changed is not None
            assert changed.posterior is None


def test_the_posterior_a_photo_is_found_by_is_the_fused_one(
    filled: Store, photos: Path, model: Model, encoder: FakeEncoder
) -> None:
    with filled._catalog.begin() as connection:
        found = {}
        for name in ("a.jpg", "sub2/c.jpg"):
            file = hits.indexed_file(connection, model, photos / name)
            assert file is not None
            found[name] = file.posterior
            assert hits.posterior_of(connection, model, file.asset_id).mu.tolist() == file.posterior.mu.tolist()
        assert hits.posterior_of(connection, model, 9999) is None
    alone = encoder.embed_images([photos / "a.jpg", photos / "sub2" / "c.jpg"])
    fused = encoder.fuse([alone[[0]], encoder.encode_texts(["a red wall"])])
    assert found["a.jpg"] is not None
    assert found["sub2/c.jpg"] is not None
    np.testing.assert_allclose(found["a.jpg"].mu, fused.mu, rtol=0.02)
    assert np.abs(found["a.jpg"].mu - alone.mu[[0]]).max() > 0.1
    np.testing.assert_allclose(found["sub2/c.jpg"].mu, alone.mu[[1]], atol=0.01)
    assert found["a.jpg"].logvar.shape == (1, encoder.dim)


def test_keyframes_in_their_order_and_without_damaged_ones(filled: Store, model: Model) -> None:
    means = np.arange(3 * model.dim, dtype=np.float16).reshape(3, model.dim)
    with closing(sqlite3.connect(filled.path / CATALOG_FILE)) as database, database:
        insert = "INSERT INTO frames (asset_id, model_id, time_ms, mu) VALUES (?, ?, ?, ?)"
        for time_ms, mu in ((2500, means[2].tobytes()), (0, means[0].tobytes()), (900, b"short")):
            database.execute(insert, (1, model.id, time_ms, mu))
    with filled._catalog.begin() as connection:
        (video,) = hits.keyframes(connection, model, [1, 2, 3]).values()
        assert hits.keyframes(connection, model, []) == {}
    assert video.times_s == (0.0, 2.5)
    np.testing.assert_array_equal(video.means, means[[0, 2]])
    assert video.means.dtype == np.float32
