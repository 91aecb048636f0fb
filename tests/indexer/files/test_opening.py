"""Files of a photo folder: links lead no further than the folder, and nothing but a regular file is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexer.files.opening import LinkLeadsOut, PhotoFolder, open_regular


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "secret.txt").write_text("secret")
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    (tmp_path / "photos" / "a.txt").write_text("words")
    return tmp_path / "photos"


def test_links_inside_lead_where_they_say(root: Path, tmp_path: Path) -> None:
    (root / "one").symlink_to("sub")
    (root / "sub" / "two.txt").symlink_to("../a.txt")
    (root / "three").symlink_to(root)
    (tmp_path / "alias").symlink_to(root)
    (root / "four.txt").symlink_to(tmp_path / "alias" / "a.txt")
    for path in ("a.txt", "one/two.txt", "three/three/one/two.txt", "./sub//two.txt"):
        with PhotoFolder(root).open(path) as file:
            assert file.read() == b"words"
    with PhotoFolder(tmp_path / "alias").open("four.txt") as file:  # by the name that the root has on record
        assert file.read() == b"words"


@pytest.mark.parametrize("target", ["../out/secret.txt", "/etc/hosts", "sub/../../out/secret.txt", "up/out/secret.txt"])
def test_what_leads_out_is_not_opened(root: Path, target: str) -> None:
    (root / "up").symlink_to("..")
    (root / "link.txt").symlink_to(target)
    with pytest.raises(LinkLeadsOut, match="follow-links"):
        PhotoFolder(root).open("link.txt")
    if not target.startswith("/"):
        with pytest.raises(LinkLeadsOut):
            PhotoFolder(root).open(target)


def test_a_folder_on_the_way_leads_out(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(tmp_path / "out")
    with pytest.raises(LinkLeadsOut):
        PhotoFolder(root).open("link/secret.txt")
    with PhotoFolder(root, follow_links=True).open("link/secret.txt") as file:
        assert file.read() == b"secret"
    with pytest.raises(LinkLeadsOut):  # a path of a catalog, no link
        PhotoFolder(root, follow_links=True).open("../out/secret.txt")
    with pytest.raises(FileNotFoundError):
        PhotoFolder(root, follow_links=True).open("/etc/hosts")


def test_what_lies_outside_is_not_even_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "net").symlink_to("/net/host/share")
    (root / "on").symlink_to("net/pictures")
    seen: list[str] = []

    def watch(name: str) -> None:
        original = getattr(os, name)

        def call(path: object, *values: object, **more: object) -> object:
            seen.append(str(path))
            return original(path, *values, **more)

        monkeypatch.setattr(os, name, call)

    for name in ("stat", "lstat", "readlink", "open", "scandir"):
        watch(name)
    folder = PhotoFolder(root)
    assert folder.resolved("net") is None
    assert folder.resolved("on/a.jpg") is None
    assert [path for path in seen if path.startswith("/net")] == []


def test_a_folder_that_holds_the_root_has_a_name(root: Path, tmp_path: Path) -> None:
    (root / "up").symlink_to(tmp_path)
    assert PhotoFolder(root).resolved("up") == os.path.realpath(tmp_path)  # the scan calls it a loop
    with pytest.raises(LinkLeadsOut):
        PhotoFolder(root).open("up")


def test_links_without_end(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        PhotoFolder(root).open("a/x.jpg")


@pytest.mark.parametrize("follow_links", [False, True])
def test_only_regular_files_are_opened(root: Path, follow_links: bool) -> None:
    os.mkfifo(root / "pipe.jpg")
    folder = PhotoFolder(root, follow_links)
    with pytest.raises(OSError, match="not a regular file"):
        folder.open("pipe.jpg")
    with pytest.raises(IsADirectoryError):
        folder.open("sub")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular("/dev/zero")


def test_what_became_a_pipe_since_it_was_looked_at_is_not_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(root / "pipe.jpg")
    regular = os.stat(root / "a.txt")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda *_, **__: regular)
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(root / "pipe.jpg")
