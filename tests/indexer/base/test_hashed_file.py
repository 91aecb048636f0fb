from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryCorrupt, NotPlainFile
from indexer.base.hashed_file import checked_content, checksum_of, hashed_file


def test_a_checksum_is_of_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with hashed_file(path) as file:
        file.write(b"one")
        file.write(np.arange(6, dtype=np.float16).reshape(2, 3))
        file.write(np.empty((0, 3), np.float16))
    data = path.read_bytes()
    assert data == b"one" + np.arange(6, dtype=np.float16).tobytes()
    assert (file.checksum, file.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert checksum_of(path) == file.checksum
    assert checked_content(path, file.checksum, file.size_bytes) == data
    with pytest.raises(FileExistsError), hashed_file(path):
        pass


@pytest.mark.parametrize("damage", ["longer", "shorter", "other"])
def test_content_that_is_not_what_it_was(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "file"
    path.write_bytes({"longer": b"words!", "shorter": b"word", "other": b"swords"[:5]}[damage])
    with pytest.raises(LibraryCorrupt, match="has changed since it was written"):
        checked_content(path, hashlib.sha256(b"words").hexdigest(), 5)


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"words")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for read in (checksum_of, lambda path: checked_content(path, "", 5)):
        with pytest.raises(NotPlainFile):
            read(tmp_path / "link")  # type: ignore[operator]
    with pytest.raises(FileExistsError), hashed_file(tmp_path / "link"):
        pass
