"""How many files there are of what, and which were skipped."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection

from indexer.catalog import assets, captions, library, notices
from indexer.catalog.captions import Key
from indexer.catalog.roots import Root
from tests.indexer.catalog.conftest import AddFile


def test_every_file_is_in_one_count(connection: Connection, add_file: AddFile, root: Root) -> None:
    add_file("a.jpg"), add_file("b.jpg"), add_file("c.txt", "text")
    gone = add_file("d.jpg")
    add_file("e.jpg", error="broken")
    assets.mark(connection, [gone], missing=True)
    assert assets.count_by_state(connection) == {
        (root.id, "image", "live"): 2,
        (root.id, "text", "live"): 1,
        (root.id, "image", "missing"): 1,
        (root.id, "image", "skipped"): 1,
    }


def test_captions_count_while_they_and_their_photos_are_live(
    connection: Connection, add_file: AddFile, root: Root
) -> None:
    photo, gone = add_file("a.jpg"), add_file("b.jpg")
    for number, asset_id in enumerate((photo, photo, gone)):
        captions.insert(connection, [(Key(asset_id, None, "captions.csv", bytes([number])), f"text {number}")])
    assert captions.count_live(connection, [root.id]) == 3
    assert captions.count_live(connection, []) == 0
    assets.mark(connection, [gone], missing=True)
    assert captions.count_live(connection, [root.id]) == 2
    captions.set_live(connection, [next(captions.recorded(connection, root)).id], False)
    assert captions.count_live(connection, [root.id]) == 1


def test_skipped_files_are_listed_by_path_with_their_reasons(
    connection: Connection, add_file: AddFile, root: Root
) -> None:
    add_file("b.jpg", error="broken picture"), add_file("a.jpg", error="empty file"), add_file("c.jpg")
    found = notices.skipped(connection)
    assert [(one.path, one.reason) for one in found] == [
        (root.path / "a.jpg", "empty file"),
        (root.path / "b.jpg", "broken picture"),
    ]
    assert all(one.when.tzinfo is UTC for one in found)


def test_the_time_of_the_last_run_is_utc(connection: Connection) -> None:
    assert library.indexed_at(connection) is None
    library.indexed(connection)
    when = library.indexed_at(connection)
    assert when is not None
    assert abs((datetime.now(UTC) - when).total_seconds()) < 30
