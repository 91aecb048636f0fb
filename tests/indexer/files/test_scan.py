"""What a scan finds, leaves out and records."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from indexer.files.scan import Scan, scan


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def paths(result: Scan) -> list[str]:
    return [file.rel_path for file in result.found]


def reasons(result: Scan) -> dict[str, str]:
    return {unseen.rel_path: unseen.reason for unseen in result.unreadable}


def test_finds_pictures_texts_and_captions_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a/z.png", "a.txt", "notes.md", "a/captions.csv", "c.tiff", "v.mp4", "data.csv", "noext")
    result = scan(tmp_path)
    assert [(file.rel_path, file.role) for file in result.found] == [
        ("a.txt", "text"), ("a/captions.csv", "captions"), ("a/z.png", "image"),
        ("b.JPG", "image"), ("c.tiff", "image"), ("notes.md", "text"), ("v.mp4", "image"),
    ]  # fmt: skip
    assert not result.unreadable
    assert result.found[0].size_bytes == 1
    assert result.found[0].mtime_ns == (tmp_path / "a.txt").stat().st_mtime_ns


def test_hidden_files_and_folders_are_excluded(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden.jpg", ".cache/a.jpg", "seen/.thumbs/a.jpg", "seen/a.jpg", ".jpg")
    assert paths(scan(tmp_path)) == ["seen/a.jpg"]


def test_a_part_of_a_root(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "ab/y.jpg", "a/b/z.jpg")
    assert paths(scan(tmp_path, "a")) == ["a/b/z.jpg", "a/x.jpg"]


def test_folders_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "library/y.jpg")
    assert paths(scan(tmp_path, leave_out=[tmp_path / "library", tmp_path / "absent"])) == ["a/x.jpg"]


def test_a_link_to_the_parent_is_recorded_and_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    result = scan(tmp_path)
    assert paths(result) == ["a/x.jpg"]
    assert set(reasons(result)) == {"a/up", "a/self"}
    assert "loop" in reasons(result)["a/up"]


def test_links_to_each_other_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    (tmp_path / "x.jpg").symlink_to(tmp_path / "x.jpg")
    assert reasons(scan(tmp_path)) == dict.fromkeys(("one", "two", "x.jpg"), "symbolic link to itself")


def test_a_linked_folder_is_followed_once_and_real_folders_win(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    touch(outside, "x.jpg", "deep/y.jpg")
    touch(root, "z/real.jpg")
    (root / "a").symlink_to(root / "z")  # sorts before what it points to
    (root / "b").symlink_to(outside)
    (root / "c").symlink_to(outside)
    (outside / "deep" / "back").symlink_to(outside)
    result = scan(root, follow_links=True)
    assert paths(result) == ["b/deep/y.jpg", "b/x.jpg", "z/real.jpg"]
    assert list(reasons(result)) == ["b/deep/back"]


def test_a_linked_file_counts_once(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root, "b.jpg")
    touch(outside, "o.jpg")
    (root / "a.jpg").symlink_to(root / "b.jpg")
    (root / "c.jpg").symlink_to(outside / "o.jpg")
    (root / "d.jpg").symlink_to(outside / "o.jpg")
    assert paths(scan(root, follow_links=True)) == ["b.jpg", "c.jpg"]


def test_hard_links_are_files_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    os.link(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert paths(scan(tmp_path)) == ["a.jpg", "b.jpg"]


def test_hard_links_behind_a_link_are_files_too_and_links_to_any_of_them_are_not(tmp_path: Path) -> None:
    root, far = tmp_path / "root", tmp_path / "far"
    touch(root, "a.jpg")
    far.mkdir()
    (far / "b.jpg").hardlink_to(root / "a.jpg")
    touch(far, "c.jpg")
    (root / "link").symlink_to(far)
    (root / "z.jpg").symlink_to(far / "b.jpg")
    (far / "z.jpg").symlink_to(far / "c.jpg")
    assert paths(scan(root, follow_links=True)) == ["a.jpg", "link/b.jpg", "link/c.jpg"]


def test_broken_links(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert list(reasons(scan(tmp_path))) == ["gone.jpg"]


def test_a_pipe_named_like_a_picture_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    result = scan(tmp_path)
    assert reasons(result) == {"pipe.jpg": "not a regular file"}


def test_an_unreadable_folder_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "open/a.jpg", "shut/b.jpg")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = scan(tmp_path)
    assert paths(result) == ["open/a.jpg"]
    assert reasons(result) == {"shut": "folder cannot be read (Permission denied)"}
    assert result.unreadable[0].is_folder


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_unreadable_folder_seen_by_another_user() -> None:
    code = (
        "import os, sys; from pathlib import Path; from indexer.files.scan import scan; "
        "os.setgid(65534); os.setuid(65534); "
        "one = scan(Path(sys.argv[1])); print([f.rel_path for f in one.found], [u.reason for u in one.unreadable])"
    )
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        root = Path(name)
        root.chmod(0o755)
        touch(root, "open/a.jpg", "shut/b.jpg")
        (root / "shut").chmod(0o700)
        done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['open/a.jpg'] ['folder cannot be read (Permission denied)']"


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg"
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_bytes(b"x")
    (file,) = scan(tmp_path).found
    assert os.fsencode(file.rel_path) == name


def test_a_tree_deeper_than_recursion(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(400):
        folder = folder / "d"
    folder.mkdir(parents=True)
    touch(folder, "x.jpg")
    assert len(scan(tmp_path).found) == 1


def test_heartbeat_counts(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "b/y.jpg")
    beats: list[tuple[int, str]] = []
    scan(tmp_path, heartbeat=lambda count, path: beats.append((count, path)))
    assert beats[-1][0] == 2
    assert len(beats) == 3
