"""The rows of files: found, changed, hidden, returned, unreadable."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from indexer.base.types import Model
from indexer.catalog import assets, vectors
from indexer.catalog.assets import Description, FileState, KnownFile
from indexer.catalog.roots import Root, Target
from indexer.catalog.vectors import Blobs
from tests.indexer.catalog.conftest import AddFile

BLOBS = Blobs(b"\0" * 8, b"\0" * 8)
SHOWN = Description(640, 480, datetime(2019, 7, 6, 5, 4, 3), "X100", 47.5, 8.25)


def known(connection: Connection, root: Root, model: Model, prefix: str = "") -> dict[str, KnownFile]:
    return {one.rel_path: one for one in assets.known_files(connection, Target(root, prefix, ()), model)}


def test_known_files_of_a_target(connection: Connection, add_file: AddFile, root: Root, model: Model) -> None:
    ids = {name: add_file(name) for name in ("a/x.jpg", "a/y\udcff.jpg", "b.jpg")}
    ids["a/bad.jpg"] = add_file("a/bad.jpg", error="broken")
    vectors.add_own(connection, model, {ids["a/x.jpg"]: BLOBS})
    assets.mark(connection, [ids["a/y\udcff.jpg"]], missing=True)
    assert known(connection, root, model, "a") == {
        "a/x.jpg": KnownFile(ids["a/x.jpg"], "a/x.jpg", False, None, 10, 20, True),
        "a/y\udcff.jpg": KnownFile(ids["a/y\udcff.jpg"], "a/y\udcff.jpg", True, None, 10, 20, False),
        "a/bad.jpg": KnownFile(ids["a/bad.jpg"], "a/bad.jpg", False, "broken", 10, 20, False),
    }
    assert assets.count_live(connection, Target(root, "", ())) == 2
    assert assets.hashes_of(connection, [ids["b.jpg"], ids["a/bad.jpg"]]) == {
        ids["b.jpg"]: b"b.jpg", ids["a/bad.jpg"]: b"a/bad.jpg",
    }  # fmt: skip


def test_more_files_than_a_page(connection: Connection, add_file: AddFile, root: Root, model: Model) -> None:
    names = {f"{number}.jpg" for number in range(2 * assets.PAGE + 3)}
    for name in names:
        add_file(name)
    assert known(connection, root, model).keys() == names


def test_a_file_returns_to_what_it_was(connection: Connection, add_file: AddFile, root: Root, model: Model) -> None:
    live, bad = add_file("a.jpg"), add_file("b.jpg", error="broken")
    assets.mark(connection, [live, bad], missing=True)
    assert [one.is_missing for one in known(connection, root, model).values()] == [True, True]
    assert list(assets.present(connection, root)) == []
    assets.mark(connection, [live, bad], missing=False)
    assert [(one.id, one.is_live) for one in assets.present(connection, root)] == [(live, True), (bad, False)]


def test_new_content_replaces_all_and_a_new_path_keeps_it(connection: Connection, root: Root, model: Model) -> None:
    asset_id = assets.insert(connection, root, FileState("a.jpg", "image", 1, 2, b"one"), SHOWN)
    assert assets.description_of(connection, asset_id) == SHOWN
    assets.keep(connection, asset_id, root, FileState("b.jpg", "image", 1, 3, b"one"))
    assert assets.description_of(connection, asset_id) == SHOWN
    assert known(connection, root, model)["b.jpg"] == KnownFile(asset_id, "b.jpg", False, None, 1, 3, False)
    assets.replace(connection, asset_id, root, FileState("b.jpg", "text", 5, 6, b"two"), Description(excerpt="words"))
    assert assets.description_of(connection, asset_id) == Description(excerpt="words")
    assert assets.hashes_of(connection, [asset_id]) == {asset_id: b"two"}


def test_a_file_that_cannot_be_opened_keeps_what_is_known_of_it(connection: Connection, root: Root) -> None:
    asset_id = assets.insert(connection, root, FileState("a.jpg", "image", 1, 2, b"one"), SHOWN)
    assets.unopened(connection, asset_id, FileState("a.jpg", "image", 0, -1, None, "cannot be read"))
    assert assets.hashes_of(connection, [asset_id]) == {asset_id: b"one"}
    assert assets.description_of(connection, asset_id) == SHOWN
    assert [one.is_live for one in assets.present(connection, root)] == [False]


def test_contents_that_need_no_encoding(connection: Connection, add_file: AddFile, root: Root, model: Model) -> None:
    image, text, _, bad = (
        add_file("a.jpg", content=b"1"), add_file("a.txt", "text", content=b"2"), add_file("b.jpg", content=b"3"),
        add_file("c.jpg", content=b"4", error="broken"),
    )  # fmt: skip
    vectors.add_own(connection, model, {image: BLOBS, text: BLOBS, bad: BLOBS})
    assert assets.known_hashes(connection, model) == {"image": {b"1"}, "text": {b"2"}}
    assert [one.rel_path for one in assets.unencoded(connection, root, model)] == ["b.jpg"]
