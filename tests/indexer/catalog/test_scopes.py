"""Conditions: what lies below a folder, which files are encoded."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, select

from indexer.base.types import Model
from indexer.catalog import root_updates, vectors
from indexer.catalog.roots import Root, Target
from indexer.catalog.schema import assets
from indexer.catalog.scopes import CHUNK, below, chunked, is_encoded, within
from tests.indexer.catalog.conftest import AddFile

NAMES = ("a", "a/b", "a/b/c", "a-b", "a.b", "a0", "a0/b", "b", "A/b", "a/\udcff", "a/é")


@pytest.mark.parametrize("prefix", ["", "a", "a/b", "a0", "nowhere"])
def test_below_a_folder(connection: Connection, add_file: AddFile, root: Root, prefix: str) -> None:
    for name in NAMES:
        add_file(name)
    found = set(connection.scalars(select(assets.c.rel_path).where(within(assets.c.rel_path, prefix))))
    assert found == {name for name in NAMES if not prefix or name == prefix or name.startswith(prefix + "/")}
    other = root_updates.add(connection, root.path.with_name("other"))
    assert set(connection.scalars(select(assets.c.rel_path).where(below(Target(root, prefix, ()))))) == found
    assert not connection.execute(select(assets).where(below(Target(other, prefix, ())))).all()


@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_chunks_hold_every_id_once(count: int) -> None:
    chunks = list(chunked(iter(range(count))))
    assert [one for chunk in chunks for one in chunk] == list(range(count))
    assert all(0 < len(chunk) <= CHUNK for chunk in chunks)


def test_a_file_is_encoded_when_this_model_has_a_usable_vector(
    connection: Connection, add_file: AddFile, model: Model
) -> None:
    first, second, third = (add_file(name) for name in "abc")
    other = Model(model.id + 1, "f", "other", 4)

    def encoded(by: Model) -> list[int]:
        return list(connection.scalars(select(assets.c.id).where(is_encoded(by)).order_by(assets.c.id)))

    blobs = vectors.Blobs(b"\0" * 8, b"\0" * 8)
    vectors.add_own(connection, model, {first: blobs, second: blobs})
    assert encoded(model) == [first, second]
    assert encoded(other) == []
    vectors.set_own(connection, model, {second: None, third: blobs})
    assert encoded(model) == [first, third], "an emptied vector is none"
