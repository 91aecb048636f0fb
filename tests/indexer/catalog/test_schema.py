"""The tables: paths as bytes, ids that are not used again, rows that leave together."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, delete, select, text
from sqlalchemy.exc import IntegrityError

from indexer.catalog import keyframes
from indexer.catalog.roots import Root
from indexer.catalog.schema import about, assets, frames, metadata, vectors
from tests.indexer.catalog.conftest import AddFile


@pytest.mark.parametrize("name", ["plain.jpg", "ü/é.jpg", "\udcff\udcfe.jpg", "a'b\"c\n.jpg"])
def test_a_path_is_kept_as_the_bytes_of_the_file_system(connection: Connection, add_file: AddFile, name: str) -> None:
    asset_id = add_file(name)
    assert connection.scalars(select(assets.c.rel_path).where(assets.c.id == asset_id)).one() == name
    stored = connection.execute(text("SELECT rel_path FROM assets WHERE id = :id"), {"id": asset_id}).scalar_one()
    assert bytes(stored) == name.encode("utf-8", "surrogateescape")


def test_one_row_for_each_path_of_a_root(connection: Connection, add_file: AddFile) -> None:
    add_file("a.jpg")
    with pytest.raises(IntegrityError):
        add_file("a.jpg")


def test_an_id_is_not_given_to_another_file(connection: Connection, add_file: AddFile) -> None:
    first = add_file("a.jpg")
    connection.execute(delete(assets).where(assets.c.id == first))
    assert add_file("b.jpg") > first


def test_what_a_file_says_and_its_keyframes_leave_with_it(
    connection: Connection, add_file: AddFile, root: Root, model: object
) -> None:
    asset_id = add_file("a.mp4")
    keyframes.write(connection, 1, {asset_id: ((0, bytes(8)),)})
    connection.execute(about.insert(), {"asset_id": asset_id})
    connection.execute(delete(assets).where(assets.c.id == asset_id))
    assert connection.execute(select(frames)).all() == connection.execute(select(about)).all() == []


def test_a_file_with_a_vector_does_not_leave_by_accident(
    connection: Connection, add_file: AddFile, model: object
) -> None:
    asset_id = add_file("a.jpg")
    connection.execute(vectors.insert(), {"model_id": 1, "asset_id": asset_id, "role": "own", "change": 1})
    with pytest.raises(IntegrityError):
        connection.execute(delete(assets).where(assets.c.id == asset_id))


def test_constraints_have_names_by_which_a_migration_finds_them() -> None:
    for table in metadata.sorted_tables:
        for constraint in table.constraints:
            assert constraint.name is not None, table.name
        for index in table.indexes:
            assert str(index.name).startswith(f"ix_{table.name}_")
