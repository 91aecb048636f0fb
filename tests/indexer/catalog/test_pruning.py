"""Files are deleted with everything that belongs to them, and with nothing else."""

from __future__ import annotations

from sqlalchemy import Connection

from indexer.base.types import Model
from indexer.catalog import captions, checks, fused, notices, pruning, root_updates, tables, vectors
from indexer.catalog.assets import mark
from indexer.catalog.captions import Key
from indexer.catalog.roots import Root, Target, all_roots
from tests.indexer.catalog.conftest import AddFile
from tests.indexer.catalog.test_checks import ONE


def test_the_files_of_a_target(connection: Connection, root: Root, add_file: AddFile) -> None:
    ids = {name: add_file(name) for name in ("a/x.png", "a/y.png", "b.png")}
    mark(connection, [ids["a/x.png"], ids["b.png"]], missing=True)
    whole, part = Target(root, "", ()), Target(root, "a", ())
    assert {name for _, name in pruning.files(connection, whole, missing_only=False)} == set(ids)
    assert list(pruning.files(connection, part, missing_only=True)) == [(ids["a/x.png"], "a/x.png")]


def test_a_caption_that_goes_takes_the_fusion_of_its_photo(
    connection: Connection, model: Model, root: Root, add_file: AddFile
) -> None:
    photo, text = add_file("a.png"), add_file("a.txt", "text")
    vectors.set_own(connection, model, {photo: ONE, text: ONE})
    captions.insert(connection, [(Key(photo, text_asset_id=text), None)])
    fused.store(connection, model, {photo: ONE})
    root_updates.paired(connection, root, None)
    pruning.delete_files(connection, [text])
    assert (tables.count(connection, "assets"), tables.count(connection, "captions")) == (1, 0)
    assert vectors.own(connection, model, photo) == ONE
    assert fused.unfused(connection, model) == []
    assert root_updates.pairing_of(connection, root)[0]
    pruning.delete_files(connection, [photo])
    assert [tables.count(connection, name) for name in ("assets", "captions", "vectors")] == [0, 0, 0]
    assert checks.dangling(connection) == []


def test_a_root_goes_when_all_of_it_is_meant(connection: Connection, root: Root) -> None:
    notices.add(connection, root, "scan", "a/x", "cannot be read")
    notices.add(connection, root, "scan", "b", "cannot be read")
    pruning.delete_root(connection, Target(root, "a", ()))
    assert notices.count(connection, Target(root, "", ())) == 1
    assert all_roots(connection) != []
    pruning.delete_root(connection, Target(root, "", ()))
    assert all_roots(connection) == []
