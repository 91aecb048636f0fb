"""Which photos wait for their fusion, what it is made of, and that an expert that changed forgets it."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, select

from indexer.base.types import CAPTION, HIDDEN, IMAGE, Model
from indexer.catalog import assets, captions, fused, vectors
from indexer.catalog.captions import Key
from indexer.catalog.schema import vectors as table
from tests.indexer.catalog.conftest import AddFile
from tests.indexer.catalog.test_vectors import blobs

PHOTO, TEXT, ROW, JOINT = blobs(1, 0, 0, 0), blobs(0, 1, 0, 0), blobs(0, 0, 1, 0), blobs(0, 0, 0, 1)


@pytest.fixture
def photo(connection: Connection, model: Model, add_file: AddFile) -> tuple[int, int]:
    """A photo with two captions, a text beside it and a row of a CSV; their ids are the photo's and the text's."""
    image, text = add_file("a.jpg"), add_file("a.txt", "text")
    vectors.add_own(connection, model, {image: PHOTO, text: TEXT, add_file("bare.jpg"): PHOTO})
    captions.insert(connection, [(Key(image, text), None), (Key(image, None, "captions.csv", b"h"), "a lake")])
    (pending,) = captions.pending(connection, model)
    vectors.add_texts(connection, model, [(pending, ROW)])
    return image, text


def test_a_photo_with_captions_waits_until_it_is_fused(
    connection: Connection, model: Model, photo: tuple[int, int]
) -> None:
    image, text = photo
    assert fused.unfused(connection, model) == [image]
    assert fused.photos(connection, model, [image]) == {image: PHOTO}
    assert fused.experts(connection, model, [image]) == {image: [ROW, TEXT]}, "in an order of their own"
    assert fused.captioned_by(connection, [text]) == {image}
    fused.store(connection, model, {image: JOINT})
    assert fused.unfused(connection, model) == []


def test_a_photo_is_found_by_its_fusion_alone(connection: Connection, model: Model, photo: tuple[int, int]) -> None:
    image, text = photo
    fused.store(connection, model, {image: JOINT})
    kinds = {
        (row.asset_id, row.role, row.caption_id is not None): row.kind for row in connection.execute(select(table))
    }
    assert kinds[image, "fused", False] == IMAGE
    assert kinds[image, "own", False] == HIDDEN
    assert kinds[image, "own", True] == CAPTION
    assert kinds[text, "own", False] == CAPTION


def test_a_changed_expert_forgets_the_fusion_and_the_row_is_used_again(
    connection: Connection, model: Model, photo: tuple[int, int]
) -> None:
    image, _ = photo
    fused.store(connection, model, {image: JOINT})
    fused.drop(connection, [])
    assert fused.unfused(connection, model) == []
    fused.drop(connection, [image])
    assert fused.unfused(connection, model) == [image]
    fused.store(connection, model, {image: ROW})
    rows = connection.execute(select(table.c.mu).where(table.c.role == "fused")).all()
    assert [row.mu for row in rows] == [ROW.mu]


def test_neither_a_photo_that_is_gone_nor_a_caption_that_is(
    connection: Connection, model: Model, photo: tuple[int, int], root: object
) -> None:
    image, _ = photo
    for row in captions.recorded(connection, root):
        captions.set_live(connection, [row.id], False)
    assert fused.unfused(connection, model) == []
    for row in captions.recorded(connection, root):
        captions.set_live(connection, [row.id], True)
    assert fused.unfused(connection, model) == [image]
    assets.mark(connection, [image], missing=True)
    assert fused.unfused(connection, model) == []
