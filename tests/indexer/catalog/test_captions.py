"""The texts that speak of photos: recorded, gone and back, waiting for a vector, listed with their photos."""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import Connection

from indexer.base.types import Model
from indexer.catalog import captions
from indexer.catalog.captions import CaptionRow, Key, PendingText
from indexer.catalog.roots import Root
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.catalog.conftest import AddFile


def test_captions_are_recorded_and_never_deleted(connection: Connection, add_file: AddFile, root: Root) -> None:
    photo, text = add_file("a.jpg"), add_file("a.txt", "text")
    beside, row = Key(photo, text), Key(photo, None, "sub/captions.csv", b"hash")
    captions.insert(connection, [])
    captions.insert(connection, [(beside, None), (row, "a lake")])
    found = list(captions.recorded(connection, root))
    assert [(one.key, one.is_live, one.photo_path) for one in found] == [(beside, True, "a.jpg"), (row, True, "a.jpg")]
    captions.set_live(connection, [found[1].id], False)
    assert list(captions.recorded(connection, root))[1] == CaptionRow(found[1].id, row, False, "a.jpg")
    captions.set_live(connection, [one.id for one in found], True)
    assert all(one.is_live for one in captions.recorded(connection, root))


def test_texts_wait_for_a_vector_the_shortest_first(connection: Connection, add_file: AddFile, model: Model) -> None:
    photo, text = add_file("a.jpg"), add_file("a.txt", "text")
    words = ("a long caption of a lake", "a lake", "gone")
    captions.insert(connection, [(Key(photo, None, "c.csv", one.encode()), one) for one in words])
    captions.insert(connection, [(Key(photo, text), None)])  # encoded as a file
    captions.insert(connection, [(Key(photo, None, "d.csv", b"none"), None)])  # a crafted row: its text is nowhere
    gone = captions.pending(connection, model)[0]
    captions.set_live(connection, [gone.id], False)
    assert [(one.text, one.text_hash, one.photo_id, one.vector_id) for one in captions.pending(connection, model)] == [
        ("a lake", b"a lake", photo, None),
        ("a long caption of a lake", b"a long caption of a lake", photo, None),
    ]
    assert isinstance(gone, PendingText)


def test_captioned_photos_have_their_words_from_both_sources(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number, name in enumerate(("bare", "beside", "both", "rows")):
        paint(photos / f"{name}.png", "red", seed=number)
    shutil.copy(photos / "rows.png", photos / "twin.png")
    (photos / "beside.txt").write_text("a boat\n on the  lake")
    (photos / "both.txt").write_text("a barn")
    (photos / "alone.txt").write_text("no photo of this name")
    rows = ["both.png,zebra", "both.png,a barn", "rows.png,a hill", "twin.png,a slope", "gone.png,nothing"]
    (photos / "captions.csv").write_text("\n".join(["image,caption", *rows]))
    with Store.open(tmp_path / "library", create=True) as store:
        store.ingest(photos, FakeEncoder())
        found = {photo.path.name: photo for photo in store.captioned_photos()}
        assert {name: photo.captions for name, photo in found.items()} == {
            "beside.png": ("a boat on the lake",),
            "both.png": ("a barn", "zebra"),
            "rows.png": ("a hill",),
            "twin.png": ("a slope",),
        }
        assert found["rows.png"].content_hash == found["twin.png"].content_hash != found["both.png"].content_hash
        (photos / "both.png").unlink()
        (photos / "captions.csv").unlink()
        store.ingest(photos, FakeEncoder())
        assert [photo.path.name for photo in store.captioned_photos()] == ["beside.png"]
