"""Errors of the disk keep their names, and each has one remedy."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from indexer.base import disk_errors
from indexer.base.disk_errors import FAILING, FULL, NO_INODES, NO_MEMORY, READ_ONLY, TOO_MANY_FILES, Trouble


class OfSQLite(sqlite3.OperationalError):
    """As the driver raises it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.sqlite_errorname = name


Fill = Callable[[int, int], None]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Fill:
    def fill(free_bytes: int, free_files: int, flags: int = 0) -> None:
        disk = {"f_bfree": free_bytes, "f_frsize": 1, "f_ffree": free_files, "f_files": 9, "f_flag": flags}
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**disk))

    fill(1 << 30, 1000)
    return fill


def of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (of(errno.ENOSPC), FULL),
        (of(errno.EDQUOT), FULL),
        (of(errno.EROFS), READ_ONLY),
        (of(errno.EIO), FAILING),
        (of(errno.ESTALE), FAILING),
        (of(errno.ENOTCONN), FAILING),
        (of(errno.EMFILE), TOO_MANY_FILES),
        (of(errno.ENFILE), TOO_MANY_FILES),
        (of(errno.ENOMEM), NO_MEMORY),
        (MemoryError(), NO_MEMORY),
        (of(errno.EACCES), None),
        (ValueError("no number"), None),
        (OfSQLite("SQLITE_FULL"), FULL),
        (OfSQLite("SQLITE_NOMEM"), NO_MEMORY),
        (OfSQLite("SQLITE_IOERR_READ"), FAILING),
        (OfSQLite("SQLITE_IOERR_WRITE"), FAILING),
        (OfSQLite("SQLITE_IOERR_SHMSIZE"), FAILING),
        (OfSQLite("SQLITE_IOERR_LOCK"), None),
        (OfSQLite("SQLITE_READONLY"), None),
        (OfSQLite("SQLITE_CANTOPEN"), None),
        (OfSQLite("SQLITE_BUSY"), None),
    ],
)
def test_what_an_error_means(left: Fill, tmp_path: Path, error: BaseException, expected: Trouble | None) -> None:
    (tmp_path / "catalog.sqlite").touch()
    assert disk_errors.trouble(error, tmp_path / "catalog.sqlite") == expected


@pytest.mark.parametrize("error", [of(errno.ENOSPC), OfSQLite("SQLITE_FULL"), OfSQLite("SQLITE_CANTOPEN")])
def test_a_disk_with_room_but_not_for_another_file(left: Fill, tmp_path: Path, error: Exception) -> None:
    left(1 << 30, 0)
    assert disk_errors.trouble(error, tmp_path / "a" / "b") == NO_INODES


@pytest.mark.parametrize("name", ["SQLITE_IOERR_SHMSIZE", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR_WRITE"])
def test_what_sqlite_leaves_open_is_looked_up(left: Fill, tmp_path: Path, name: str) -> None:
    left(4096, 1000)
    assert disk_errors.trouble(OfSQLite(name), tmp_path) == FULL
    assert disk_errors.trouble(OfSQLite("SQLITE_IOERR_READ"), tmp_path) == FAILING


def test_a_disk_that_was_mounted_read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk = {"f_bfree": 1 << 30, "f_frsize": 1, "f_ffree": 9, "f_files": 9, "f_flag": os.ST_RDONLY}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**disk))
    for name in ("SQLITE_READONLY", "SQLITE_IOERR_WRITE"):
        assert disk_errors.trouble(OfSQLite(name), tmp_path) == READ_ONLY


def test_why_sqlite_could_not_open_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise of(errno.EMFILE)

    monkeypatch.setattr(os, "open", refuse)
    assert disk_errors.trouble(OfSQLite("SQLITE_CANTOPEN"), tmp_path) == TOO_MANY_FILES


def test_one_line_with_the_system_s_word_or_ours(left: Fill, tmp_path: Path) -> None:
    said = disk_errors.in_words(of(errno.ENOSPC), tmp_path, "look at it")
    assert said == "(No space left on device); make room and run the same command again"
    assert disk_errors.in_words(of(errno.EACCES), tmp_path, "look at it") == "(Permission denied); look at it"
    assert "failing); run the same command again; if it stays" in disk_errors.in_words(of(errno.EIO), tmp_path, "x")
    assert disk_errors.in_words(ValueError("a\nb"), tmp_path, "look at it") == "(a b); look at it"


def test_nothing_is_believed_of_one_read_that_failed() -> None:
    answers: list[OSError | str] = [of(errno.EIO), "whole"]

    def read() -> str:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert disk_errors.twice(read) == "whole"
    answers[:] = [of(errno.EIO), of(errno.EIO), "whole"]
    with pytest.raises(OSError, match="Input/output"):
        disk_errors.twice(read)
    answers[:] = [of(errno.ENOENT), "whole"]
    with pytest.raises(FileNotFoundError):
        disk_errors.twice(read)


def test_a_broken_video_is_no_broken_disk() -> None:
    class InputOutputError(OSError):
        """As FFmpeg's, whose numbers are those of the system."""

    assert not disk_errors.is_failing(InputOutputError(errno.EIO, "Input/output error"))
    assert disk_errors.is_failing(of(errno.EIO))
    assert not disk_errors.is_failing(of(errno.ENOSPC))
