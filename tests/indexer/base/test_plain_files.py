from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from indexer.base.errors import LibraryError, NotPlainFile
from indexer.base.plain_files import (
    check_folder,
    check_name,
    make_folder,
    new_file,
    open_plain,
    read_plain,
    temporary_name,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")


def kinds(folder: Path) -> dict[str, Path]:
    outside = folder / "outside"
    outside.write_bytes(b"precious")
    made = {name: folder / name for name in ("symbolic", "dangling", "hard", "pipe", "folder", "device")}
    made["symbolic"].symlink_to(outside)
    made["dangling"].symlink_to(folder / "not-there")
    os.link(outside, made["hard"])
    os.mkfifo(made["pipe"])
    made["folder"].mkdir()
    made["device"].symlink_to("/dev/zero")
    return made


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_APPEND])
@pytest.mark.parametrize("kind", ["symbolic", "dangling", "hard", "pipe", "folder", "device"])
def test_what_is_no_plain_file_is_refused_at_once_and_left_as_it_was(tmp_path: Path, kind: str, flags: int) -> None:
    path = kinds(tmp_path)[kind]
    with pytest.raises(NotPlainFile, match="holds plain files only"):
        open_plain(path, flags)
    assert (tmp_path / "outside").read_bytes() == b"precious"
    assert not (tmp_path / "not-there").exists()


def test_plain_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_plain(path, 5) == b"12345"
    with pytest.raises(LibraryError, match="larger than 4 bytes"):
        read_plain(path, 4)
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "none", 4)


def test_the_name_of_a_library_is_one_that_sqlite_takes(tmp_path: Path) -> None:
    longest = tmp_path.joinpath(*["x" * 200] * 2, "y" * (489 - len(str(tmp_path)) - 403))
    longest.mkdir(parents=True)
    check_name(longest)
    connection = sqlite3.connect(longest / "catalog.sqlite")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(LibraryError, match="is 490 bytes long"):
        check_name(longest.with_name(f"{longest.name}z"))
    with pytest.raises(LibraryError, match="is not UTF-8"):
        check_name(tmp_path / os.fsdecode(b"\xff"))


def test_a_folder_of_a_library_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "vectors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotPlainFile, match="is a link"):
        make_folder(tmp_path / "vectors")
    check_folder(tmp_path / "none")
    make_folder(tmp_path / "none" / "below")
    assert (tmp_path / "none" / "below").is_dir()


def test_a_new_file_has_a_name_of_its_own(tmp_path: Path) -> None:
    one, other = (temporary_name(tmp_path / "index-1.f16") for _ in range(2))
    assert one != other
    with new_file(one) as file:
        file.write(b"x")
    with pytest.raises(FileExistsError):
        new_file(one)
