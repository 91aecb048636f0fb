"""Questions that a sound catalog answers with nothing, and a damaged one with what is wrong."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from indexer.base.types import IMAGE, Model
from indexer.catalog import captions, checks, vectors
from indexer.catalog.captions import Key
from indexer.catalog.roots import Root
from indexer.catalog.vectors import Blobs
from tests.indexer.catalog.conftest import AddFile

ONE = Blobs(b"\1" * 8, b"\2" * 8)


def sql(connection: Connection, statements: Iterable[str]) -> None:
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    for statement in statements:
        connection.exec_driver_sql(statement)


def test_a_sound_catalog_has_no_answer(connection: Connection, model: Model, add_file: AddFile) -> None:
    vectors.set_own(connection, model, {add_file("a.png"): ONE})
    assert checks.database(connection) == []
    assert checks.dangling(connection) == []
    assert checks.doubles(connection, model) == []
    assert checks.other_models(connection, model) == []
    assert checks.count_unencoded(connection, model) == 0
    ((change, generation),), newest = checks.counters(connection), checks.newest(connection)
    assert change >= newest[0] > 0
    assert generation == newest[1] == 0


def test_references_that_lead_nowhere_are_counted_by_column(connection: Connection, add_file: AddFile) -> None:
    add_file("a.png")
    add_file("b.png")
    sql(connection, ["UPDATE assets SET root_id = 99", "INSERT INTO captions (asset_id, live) VALUES (4711, 1)"])
    assert sorted(checks.dangling(connection)) == [
        ("assets", "root_id", 2),
        ("captions", "asset_id", 1),
    ]
    sql(connection, ["DELETE FROM captions", "DELETE FROM assets"])


def test_doubles_are_the_younger_ones(connection: Connection, model: Model, add_file: AddFile) -> None:
    vectors.set_own(connection, model, {add_file("a.png"): ONE, add_file("b.png"): ONE})
    sql(
        connection,
        [
            "INSERT INTO vectors (model_id, asset_id, role, kind, change, mu, logvar)"
            " SELECT model_id, asset_id, role, kind, change, mu, logvar FROM vectors WHERE asset_id = 2"
        ],
    )
    assert checks.doubles(connection, model) == [3]


def test_counters_and_what_rows_say(connection: Connection, model: Model, add_file: AddFile) -> None:
    vectors.set_own(connection, model, {add_file("a.png"): ONE})
    sql(connection, ["UPDATE vectors SET change = 70", "UPDATE library SET change = 3, generation = 5"])
    assert checks.counters(connection) == [(3, 5)]
    assert checks.newest(connection) == (70, 0)


def test_vectors_are_read_as_they_are(connection: Connection, model: Model, add_file: AddFile) -> None:
    first, second, third = (add_file(name) for name in ("a.png", "b.png", "c.png"))
    vectors.set_own(connection, model, {first: ONE, second: ONE, third: ONE})
    sql(
        connection,
        [
            f"UPDATE vectors SET mu = NULL, logvar = NULL WHERE asset_id = {second}",
            f"UPDATE vectors SET logvar = NULL WHERE asset_id = {third}",
        ],
    )
    (page,) = checks.stored_vectors(connection, model)
    assert [(one.mu, one.logvar, one.is_due) for one in page] == [
        (ONE.mu, ONE.logvar, False),
        (b"", b"", True),
        (ONE.mu, b"", False),
    ]
    assert page[0].kind == IMAGE
    assert checks.count_unencoded(connection, model) == 1


def test_a_sample_has_files_that_are_there_and_captions_that_need_none(
    connection: Connection, model: Model, root: Root, add_file: AddFile
) -> None:
    photo = add_file("a.png")
    vectors.set_own(connection, model, {photo: ONE})
    captions.insert(connection, [(Key(photo, source="captions.csv", text_hash=b"h"), "a red wall")])
    sql(
        connection,
        [
            "INSERT INTO vectors (model_id, asset_id, caption_id, role, kind, change, mu, logvar)"
            f" SELECT {model.id}, {photo}, id, 'own', 3, 1, x'01', NULL FROM captions"
        ],
    )
    everything = checks.sample(connection, model, {root.id}, 9)
    assert sorted((one.rel_path, one.text or "", one.logvar) for one in everything) == [
        ("a.png", "", ONE.logvar),
        ("a.png", "a red wall", b""),
    ]
    assert [one.text for one in checks.sample(connection, model, (), 9)] == ["a red wall"]
    assert len(checks.sample(connection, model, {root.id}, 1)) == 1
