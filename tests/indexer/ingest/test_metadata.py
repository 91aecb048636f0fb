"""Metadata of pictures in the library: text becomes captions; an older library is asked once."""

from __future__ import annotations

import shutil
from pathlib import Path

from indexer.catalog import visibility
from indexer.search.search import CATALOG_FILE
from tests.fakes import FakeEncoder
from tests.indexer.asking import Store
from tests.indexer.ingest.samples import hits, painted, rows, said


def test_words_in_a_picture_are_its_captions(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    painted(photos / "a.jpg", "a purple elephant", seed=1)
    painted(photos / "b.jpg", seed=2)
    assert store.ingest(photos, encoder).encoded == 3  # the camera's phrase is no caption
    assert said(store, encoder) == [("a.jpg", "a purple elephant")]
    first = hits(store, encoder, "a purple elephant", "image")[0]
    assert (first.path.name, first.camera) == ("a.jpg", "X100")
    again = store.ingest(photos, encoder)
    assert (again.encoded, again.unchanged) == (0, 2)


def test_a_moved_and_a_copied_picture_keep_their_words(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    painted(photos / "a.jpg", "a purple elephant")
    store.ingest(photos, encoder)
    (photos / "a.jpg").rename(photos / "z.jpg")
    shutil.copy(photos / "z.jpg", photos / "c.jpg")
    report = store.ingest(photos, encoder)
    assert (report.moved, report.added, report.encoded) == (1, 1, 0)
    assert said(store, encoder) == [("c.jpg", "a purple elephant"), ("z.jpg", "a purple elephant")]
    assert {hit.camera for hit in hits(store, encoder, "red", "image")} == {"X100"}


def test_other_words_in_a_changed_picture(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    painted(photos / "a.jpg", "a purple elephant", seed=1)
    store.ingest(photos, encoder)
    painted(photos / "a.jpg", "a green parrot", seed=2)
    store.ingest(photos, encoder)
    assert said(store, encoder) == [("a.jpg", "a green parrot")]
    (photos / "a.jpg").write_bytes(b"\xff\xd8\xff broken")
    store.ingest(photos, encoder)
    assert said(store, encoder) == []
    assert rows(store, "SELECT count(*) FROM about") == [(0,)]


def test_an_old_library_is_asked_once_and_encodes_only_words(tmp_path: Path, photos: Path) -> None:
    painted(photos / "a.jpg", "a purple elephant", seed=1)
    painted(photos / "b.jpg", seed=2)
    encoder = FakeEncoder()
    with Store.open(tmp_path / "library", create=True) as store:
        store.ingest(photos, encoder)
        with store._catalog.begin() as connection:  # as version 0001 left it
            for statement in (
                "DELETE FROM vectors WHERE caption_id IS NOT NULL OR role = 'fused'", "DELETE FROM captions",
                "UPDATE alembic_version SET version_num = '0001'", "UPDATE assets SET camera = NULL",
                "DROP TABLE about",
                "DROP TABLE frames",
                "ALTER TABLE generations DROP COLUMN facts",
            ):  # fmt: skip
                connection.exec_driver_sql(statement)
            visibility.drop(connection)
        vectors = rows(store, "SELECT id, asset_id, mu FROM vectors ORDER BY id")
    encoder = FakeEncoder()
    with Store.open(tmp_path / "library", create=True) as store:
        report = store.ingest(photos, encoder)
        assert (report.unchanged, report.encoded) == (2, 1)
        assert (encoder.images_encoded, encoder.texts_encoded) == (0, 1)
        assert rows(store, "SELECT id, asset_id, mu FROM vectors ORDER BY id")[:2] == vectors
        assert said(store, encoder) == [("a.jpg", "a purple elephant")]
        assert rows(store, "SELECT DISTINCT camera FROM assets") == [("X100",)]
        assert store.ingest(photos, encoder).encoded == 0
    assert (tmp_path / "library" / CATALOG_FILE).is_file()
