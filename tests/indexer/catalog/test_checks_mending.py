"""Rows that are wrong are made right, and nothing is lost that cannot be made again."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Connection

from indexer.base.types import Model
from indexer.catalog import captions, checks, fused, root_updates, vectors
from indexer.catalog.captions import Key
from indexer.catalog.roots import Root, all_roots
from tests.indexer.catalog.conftest import AddFile
from tests.indexer.catalog.test_checks import ONE, sql


def test_files_without_a_root_get_one_and_other_rows_go(
    connection: Connection, model: Model, root: Root, add_file: AddFile
) -> None:
    photo = add_file("a.png")
    vectors.set_own(connection, model, {photo: ONE})
    sql(
        connection,
        [
            f"DELETE FROM roots WHERE id = {root.id}",
            "INSERT INTO captions (asset_id, live) VALUES (4711, 1)",
            "INSERT INTO vectors (model_id, asset_id, caption_id, role, kind, change)"
            f" SELECT {model.id}, {photo}, id, 'own', 0, 1 FROM captions",  # it goes with the caption
            "UPDATE library SET model_id = 9",
        ],
    )
    checks.mend_references(connection, Path("/library"))
    assert checks.dangling(connection) == []
    assert [(one.id, one.path) for one in all_roots(connection)] == [(root.id, Path(f"/library/lost-folder-{root.id}"))]
    assert vectors.own(connection, model, photo) == ONE
    assert [len(page) for page in checks.stored_vectors(connection, model)] == [1]
    assert connection.exec_driver_sql("SELECT model_id FROM library").scalar_one() is None


def test_counters_are_never_behind_a_row(connection: Connection, model: Model, add_file: AddFile) -> None:
    vectors.set_own(connection, model, {add_file("a.png"): ONE})
    sql(connection, ["UPDATE vectors SET change = 70", "UPDATE library SET change = 3, generation = 5"])
    checks.mend_counters(connection)
    assert checks.counters(connection) == [(70, 5)]
    sql(connection, ["DELETE FROM library"])
    checks.mend_counters(connection)
    assert checks.counters(connection) == [(70, 0)]
    assert connection.exec_driver_sql("SELECT model_id FROM library").scalar_one() == model.id


def test_doubles_are_deleted(connection: Connection, model: Model, add_file: AddFile) -> None:
    vectors.set_own(connection, model, {add_file("a.png"): ONE})
    columns = "model_id, asset_id, role, kind, change"
    sql(connection, [f"INSERT INTO vectors ({columns}) SELECT {columns} FROM vectors"])
    assert checks.drop_doubles(connection, model) == {2}
    assert checks.doubles(connection, model) == []


def test_what_can_be_computed_again(
    connection: Connection, model: Model, root: Root, add_file: AddFile, tmp_path: Path
) -> None:
    photo = add_file("a.png")
    vectors.set_own(connection, model, {photo: ONE})
    fused.store(connection, model, {photo: ONE})
    (own, whole) = connection.exec_driver_sql("SELECT id FROM vectors ORDER BY role = 'fused'").scalars()
    ids, folder = {own, whole, 99}, {root.id: tmp_path}
    assert checks.replaceable(connection, {}, ids) == {whole}, "it follows from others, wherever the file is"
    assert checks.replaceable(connection, folder, ids) == {whole}, "the file is gone"
    (tmp_path / "a.png").write_bytes(bytes(10))
    assert checks.replaceable(connection, folder, ids) == {whole}, "the file has changed"
    os.utime(tmp_path / "a.png", ns=(20, 20))
    assert checks.replaceable(connection, folder, ids) == {own, whole}


def test_a_vector_is_forgotten_with_the_fusions_it_is_part_of(
    connection: Connection, model: Model, root: Root, add_file: AddFile
) -> None:
    photo, text, other = add_file("a.png"), add_file("a.txt", "text"), add_file("b.png")
    vectors.set_own(connection, model, {photo: ONE, text: ONE, other: ONE})
    captions.insert(connection, [(Key(photo, text_asset_id=text), None)])
    fused.store(connection, model, {photo: ONE})
    root_updates.paired(connection, root, None)
    (of_text,) = connection.exec_driver_sql(f"SELECT id FROM vectors WHERE asset_id = {text}").scalars()
    assert checks.forget(connection, model, {of_text}) == {root.id}
    assert vectors.own(connection, model, text) is None
    assert vectors.own(connection, model, photo) == vectors.own(connection, model, other) == ONE
    empty = "SELECT asset_id FROM vectors WHERE mu IS NULL ORDER BY asset_id"
    assert list(connection.exec_driver_sql(empty).scalars()) == [photo, text]  # the fusion, and the text
    assert root_updates.pairing_of(connection, root)[0]
