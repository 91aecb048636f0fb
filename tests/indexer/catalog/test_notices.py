"""Reasons why something that is no file of its own was not taken in."""

from __future__ import annotations

from sqlalchemy import Connection

from indexer.catalog import notices, root_updates
from indexer.catalog.roots import Root, Target


def test_notes_are_kept_by_source_and_forgotten_by_path(connection: Connection, root: Root) -> None:
    other = root_updates.add(connection, root.path.with_name("other"))
    whole, album = Target(root, "", ()), Target(root, "album", ())
    for source, rel_path in (("scan", "album"), ("scan", "album/x"), ("scan", "album0"), ("captions", "album/x")):
        notices.add(connection, root, source, rel_path, f"{source} of {rel_path}")
    notices.add(connection, other, "scan", "album/x", "elsewhere")
    assert (notices.count(connection, whole), notices.count(connection, album)) == (4, 3)
    assert sorted(notices.paths(connection, album, "scan")) == ["album", "album/x"]

    notices.forget(connection, root, "scan", "album/x")
    assert sorted(notices.paths(connection, whole, "scan")) == ["album", "album0"]
    assert notices.paths(connection, whole, "captions") == ["album/x"]
    notices.forget_below(connection, album, "scan")
    assert notices.paths(connection, whole, "scan") == ["album0"], "a name that begins alike is not below"
    assert notices.paths(connection, Target(other, "", ()), "scan") == ["album/x"]


def test_some_other_paths_are_forgotten_too(connection: Connection, root: Root) -> None:
    for rel_path in ("a/x", "b/x", "c/x"):
        notices.add(connection, root, "captions", rel_path, "a reason")
    notices.forget_below(connection, Target(root, "a", ()), "captions", ["c/x"])
    assert notices.paths(connection, Target(root, "", ()), "captions") == ["b/x"]


def test_notes_are_listed_with_their_paths_and_reasons(connection: Connection, root: Root) -> None:
    notices.add(connection, root, "scan", "b\udcff", "cannot be read")
    notices.add(connection, root, "captions", "a.csv", "row 3 names no picture")
    assert [(one.path, one.reason) for one in notices.skipped(connection)] == [
        (root.path / "a.csv", "row 3 names no picture"),
        (root.path / "b\udcff", "cannot be read"),
    ]
    assert notices.count(connection) == 2
