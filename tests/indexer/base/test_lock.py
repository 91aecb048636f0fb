"""One process at a time holds a lock, and a lock ends with its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.base import lock
from indexer.base.errors import LibraryError, LibraryLocked, NotPlainFile
from indexer.base.lock import LOCK_FILE, exclusive, writer_lock


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from indexer.base.lock import writer_lock\n"
        "with writer_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LibraryLocked, match=f"process {process.pid} on "), writer_lock(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with writer_lock(tmp_path):
        pass


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    with (
        writer_lock(tmp_path),
        pytest.raises(LibraryLocked, match=rf"{tmp_path} is being written by process {os.getpid()} on .*; wait"),
        writer_lock(tmp_path),
    ):
        pass
    assert (tmp_path / LOCK_FILE).exists()  # two processes could hold two files if it were removed


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(LibraryError, match=r"cannot be written \(No such file.*--library"),
        writer_lock(tmp_path / "no"),
    ):
        pass


def test_a_full_disk_asks_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock.os, "write", full)
    with pytest.raises(LibraryError, match=r"No space left.*make room"), writer_lock(tmp_path):
        pass
    monkeypatch.undo()
    with writer_lock(tmp_path):
        pass


def test_any_file_with_words_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    messages = (lambda holder: f"taken by {holder}", lambda error: f"no: {error.strerror}")
    with (
        exclusive(path, *messages, mode=0o600),
        pytest.raises(LibraryLocked, match="taken by process"),
        exclusive(path, *messages),
    ):
        pass
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(LibraryError, match="no: No such file"), exclusive(tmp_path / "no" / "a.lock", *messages):
        pass


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "folder"])
def test_a_lock_that_leads_elsewhere_is_not_written(tmp_path: Path, kind: str) -> None:
    outside, library = tmp_path / "outside", tmp_path / "library"
    outside.write_bytes(b"precious")
    library.mkdir()
    path = library / LOCK_FILE
    if kind == "hard link":
        path.hardlink_to(outside)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(outside if kind == "link" else tmp_path / "nothing")
    with pytest.raises(NotPlainFile, match="plain files only"), writer_lock(library):
        pass
    assert outside.read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()


def test_what_a_lock_says_is_one_line(tmp_path: Path) -> None:
    with writer_lock(tmp_path):
        (tmp_path / LOCK_FILE).write_text("nobody\n\nat all")
        with pytest.raises(LibraryLocked, match="written by nobody at all; wait"), writer_lock(tmp_path):
            pass
