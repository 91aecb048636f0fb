"""Folders belong to a person and a machine: what is remembered, of which library, and what that says of files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from sqlalchemy import Connection

from indexer.base import personal
from indexer.catalog import own_roots, root_updates
from indexer.catalog.database import Catalog
from indexer.catalog.reader import CatalogReader
from indexer.catalog.roots import Root


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every path below '/net' that is looked at: there, a look opens a connection."""
    seen: list[str] = []

    def watch(name: str) -> None:
        original = getattr(os, name)

        def call(path: object = ".", *values: object, **more: object) -> object:
            if isinstance(path, (str, Path)) and str(path).startswith("/net"):
                seen.append(f"{name} {path}")
            return original(path, *values, **more)

        monkeypatch.setattr(os, name, call)

    for name in ("stat", "lstat", "scandir", "listdir", "open", "readlink"):
        watch(name)
    return seen


def test_what_was_never_named_is_strange_and_not_looked_at(connection: Connection, untouched: list[str]) -> None:
    root = root_updates.add(connection, Path("/net/host/photos"))
    now = own_roots.standing(connection)
    assert (now.strange, now.online, now.offline, now.paths, now.whole) == ((root,), (), {}, {}, {})
    assert not now.own.hold(root, "a.jpg")
    assert not now.own.hold_path(root.path / "a.jpg")
    assert untouched == []


def test_what_was_named_is_online_or_offline(connection: Connection, root: Root, tmp_path: Path) -> None:
    own_roots.name(connection, root.path)
    assert list(own_roots.standing(connection).offline.items()) == [(root, "is not there")]
    root.path.mkdir()
    now = own_roots.standing(connection)
    assert (now.strange, now.online, now.whole) == ((), (root,), {root.id: root.path})
    assert now.own.hold(root, "sub/a.jpg")
    assert now.own.hold_path(root.path / "sub" / "a.jpg")


def test_a_part_of_a_root_is_that_part(connection: Connection, root: Root) -> None:
    (root.path / "mine").mkdir(parents=True)
    own = own_roots.name(connection, root.path / "mine")
    assert own.parts(root) == ("mine",)
    held = {path: own.hold(root, path) for path in ("mine", "mine/a.jpg", "a.jpg", "mine2/a.jpg", "")}
    assert held == {"mine": True, "mine/a.jpg": True, "a.jpg": False, "mine2/a.jpg": False, "": False}
    now = own_roots.standing(connection)
    assert (now.paths, now.whole) == ({root.id: root.path}, {})


def test_a_folder_above_names_the_roots_that_plainly_lie_in_it(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for path in ("top/plain", "top/.hidden/keys"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "top" / "link").symlink_to(tmp_path / "out")
    roots = {
        path: root_updates.add(connection, tmp_path / path)
        for path in ("top/plain", "top/.hidden/keys", "top/link", "out")
    }
    own = own_roots.name(connection, tmp_path / "top")
    assert [path for path, root in roots.items() if own.parts(root)] == ["top/plain"]
    own = own_roots.name(connection, tmp_path / "top" / "link")  # a person may mean it
    assert own.parts(roots["top/link"]) == ("",)


def test_it_is_remembered_of_one_library_on_one_machine_by_one_user(
    connection: Connection, root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_roots.name(connection, root.path)
    assert own_roots.own_folders(connection).parts(root) == ("",)
    other = Catalog.open(tmp_path / "other.sqlite", migrate_schema=True)
    (tmp_path / "copy").mkdir()
    copy = Catalog.open(tmp_path / "copy" / "catalog.sqlite", migrate_schema=True)
    with other.begin() as there:
        assert own_roots.own_folders(there).parts(root) == ("",)  # a library is its folder
    with copy.begin() as there:
        assert own_roots.own_folders(there).parts(root) == ()
    other.close()
    copy.close()
    with monkeypatch.context() as patch:
        patch.setattr(personal, "this_machine", lambda: "elsewhere")
        assert own_roots.own_folders(connection).parts(root) == ()
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "another person"))
    assert own_roots.own_folders(connection).parts(root) == ()


@pytest.mark.parametrize("name", ["caf\udce9", "with\nlines", "日本"])
def test_names_of_any_bytes(catalog: Catalog, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with catalog.begin() as connection:
        root = root_updates.add(connection, folder / "photos")
    catalog.close()  # all of it is in the file now
    shutil.copy(tmp_path / "catalog.sqlite", folder)
    reader = CatalogReader(folder / "catalog.sqlite")
    with reader.begin() as connection:
        own_roots.remember(connection, root.path)
        assert own_roots.own_folders(connection).parts(root) == ("",)
        assert own_roots.standing(connection).strange == ()
    reader.close()


def test_a_library_behind_a_link_is_the_same_library(connection: Connection, root: Root, tmp_path: Path) -> None:
    own_roots.name(connection, root.path)
    (tmp_path / "link").symlink_to(tmp_path)
    catalog = Catalog.open(tmp_path / "link" / "catalog.sqlite", migrate_schema=False)
    with catalog.begin() as linked:
        assert own_roots.own_folders(linked).parts(root) == ("",)
    catalog.close()


def test_links_are_followed_where_the_user_said_so_and_until_the_user_says_no(
    connection: Connection, root: Root
) -> None:
    assert not own_roots.name(connection, root.path).follow_links(root)
    assert own_roots.name(connection, root.path, follow_links=True).follow_links(root)
    assert own_roots.name(connection, root.path).follow_links(root)
    assert not own_roots.name(connection, root.path, follow_links=False).follow_links(root)


def test_one_line_says_what_is_left_out(connection: Connection) -> None:
    assert own_roots.left_out([]) == ""
    roots = [root_updates.add(connection, Path(f"/of/others/{number}")) for number in range(5)]
    line = own_roots.left_out(roots)
    assert line == (
        "not read, since you never indexed it on this machine: /of/others/0, /of/others/1, /of/others/2 and 2 more; "
        "'mmsearch index /of/others/0' takes it on"
    )
