"""What an error of the disk means, and what to type next: one sentence for each kind, the same wherever it happens.

In: an OSError or an error of SQLite, and the file concerned. Out: a `Trouble`, or None where the disk is not to blame.
Also `twice`: nothing is called damaged because one read failed. Next: `lock.py`, which speaks so first.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

ROOM_BYTES: Final = 1 << 20  # many times what SQLite needs beside a database that is only read

T = TypeVar("T")


class Trouble(NamedTuple):
    """What is wrong, and what to do about it: two parts of one line."""

    what: str
    remedy: str


FULL: Final = Trouble("the disk is full", "make room and run the same command again")
NO_INODES: Final = Trouble(
    "the disk has no room for another file (no free inodes)", "delete some files there and run the same command again"
)
READ_ONLY: Final = Trouble("the disk is mounted read-only", "mount it for writing, or name another with --library")
FAILING: Final = Trouble(
    "input/output error: the disk or its connection is failing",
    "run the same command again; if it stays, check the disk and copy the library to another one",
)
TOO_MANY_FILES: Final = Trouble("too many open files", "end other programs or raise 'ulimit -n', then run it again")
NO_MEMORY: Final = Trouble("not enough memory", "end other programs and run the same command again")

_NO_ROOM: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_FAILING: Final = frozenset(
    number
    for name in ("EIO", "ENXIO", "ENODEV", "ESTALE", "EREMOTEIO", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "ENOMEDIUM")
    if (number := getattr(errno, name, None)) is not None
)
_SHARED_LOCKS: Final = ("SQLITE_IOERR_LOCK", "SQLITE_IOERR_RDLOCK", "SQLITE_IOERR_UNLOCK", "SQLITE_IOERR_CHECKRES")


def trouble(error: BaseException, path: Path) -> Trouble | None:
    """What is wrong with the disk of `path`, or with the memory; None for everything else.

    Args:
        error: an OSError, a MemoryError or an error of sqlite3; anything else is none of the disk's.
        path: the file concerned, or its folder; it need not be there.
    """
    if isinstance(error, MemoryError):
        return NO_MEMORY
    name = getattr(error, "sqlite_errorname", None)
    if name is not None:
        return _of_sqlite(str(name), path)
    return _of_number(error.errno, path) if isinstance(error, OSError) else None


def in_words(error: BaseException, path: Path, otherwise: str) -> str:
    """`(what); remedy`, the end of a line about `path`: `otherwise` is the remedy where the disk is not to blame."""
    said = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
    found = trouble(error, path) or Trouble(said, otherwise)
    return f"({said if found is FULL else found.what}); {found.remedy}"  # ENOSPC and EDQUOT have words of their own


def is_failing(error: BaseException) -> bool:
    """Whether a disk did not give what it holds: nothing is known of the file, and another try may succeed.

    Errors of FFmpeg are OSErrors, too, and say EIO of files that are broken.
    """
    return isinstance(error, OSError) and type(error).__module__ == "builtins" and error.errno in _FAILING


def twice(read: Callable[[], T]) -> T:
    """What `read` returns, asked again once where the disk failed."""
    try:
        return read()
    except OSError as error:
        if not is_failing(error):
            raise
    return read()


def free(path: Path) -> tuple[int, int] | None:
    """Bytes and files that the disk of `path` has room for; None where the system does not say (Windows)."""
    if not hasattr(os, "statvfs"):
        return None
    for place in (path, *path.parents):
        try:
            disk = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return disk.f_bfree * disk.f_frsize, disk.f_ffree if disk.f_files else 1  # 0: Btrfs has no such limit
    return None


def no_room(path: Path) -> Trouble | None:
    """FULL or NO_INODES where next to nothing is free."""
    found = free(path)
    if found is None:
        return None
    return NO_INODES if found[1] == 0 else FULL if found[0] < ROOM_BYTES else None


def _of_number(number: int | None, path: Path) -> Trouble | None:
    if number in _NO_ROOM:
        return NO_INODES if no_room(path) is NO_INODES else FULL
    if number in _FAILING:
        return FAILING
    known = {errno.EROFS: READ_ONLY, errno.EMFILE: TOO_MANY_FILES, errno.ENFILE: TOO_MANY_FILES}
    return NO_MEMORY if number == errno.ENOMEM else known.get(number or 0)


def _of_sqlite(name: str, path: Path) -> Trouble | None:
    """SQLite says less than the system: what it leaves open is looked up."""
    if name in ("SQLITE_NOMEM", "SQLITE_IOERR_NOMEM"):
        return NO_MEMORY
    if name == "SQLITE_FULL":
        return no_room(path) or FULL
    if name.startswith("SQLITE_READONLY"):
        return no_room(path) or (READ_ONLY if _is_mounted_read_only(path) else None)
    if name.startswith("SQLITE_CANTOPEN"):
        return no_room(path) or _why_not_opened(path)
    if name.startswith("SQLITE_IOERR") and not name.startswith(_SHARED_LOCKS):
        if name.startswith("SQLITE_IOERR_READ"):
            return FAILING
        return no_room(path) or (READ_ONLY if _is_mounted_read_only(path) else FAILING)
    return None


def _is_mounted_read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except (OSError, AttributeError):
        return False


def _why_not_opened(path: Path) -> Trouble | None:
    """Asked of the folder: a process that closes a descriptor of the database itself loses SQLite's locks on it."""
    try:
        os.close(os.open(path if path.is_dir() else path.parent, os.O_RDONLY))
    except OSError as error:
        return _of_number(error.errno, path)
    return None
