"""The files of a library, opened so that nothing in its folder can lead elsewhere.

A library may come from another person, on a shared drive or in a synced folder. So whoever opens a file of it does so
here: never through a link, never a device, a pipe or a file with a second name (a hard link), since a write would then
reach a file outside. New files get names that nobody can have put there before (`O_EXCL`, a random part).

In: the folder of a library, names that this program made. Out: descriptors, bytes, temporary names.
The folder of the library itself may be a link: the person who named it meant where it leads.
Next: `personal.py`, what belongs to a user and not to a library.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

from indexer.base.errors import LibraryError, NotPlainFile

_SAFE_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
TEMPORARY: Final = ".tmp"
LONGEST_FOLDER_BYTES: Final = 489  # SQLite takes names of 512 bytes, "/catalog.sqlite-journal" among them


def open_plain(path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
    """A descriptor of the plain file at `path`, of which only the last part is not followed.

    Truncate by `os.ftruncate` afterwards, not by `O_TRUNC`: that would act before the file is looked at.

    Raises:
        NotPlainFile: it is something else.
        OSError: as `os.open`, FileNotFoundError among them.
    """
    assert not flags & os.O_TRUNC
    try:
        if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():  # Windows
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        descriptor = os.open(path, flags | _SAFE_FLAGS, mode)
    except OSError as error:
        if error.errno in (
            errno.ELOOP,
            errno.ENXIO,
            errno.EISDIR,
            errno.ENODEV,
        ):  # a link, a pipe or a device, a folder
            raise _refused(path) from error
        raise
    try:
        check_plain(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def reading(path: Path) -> BinaryIO:
    """The plain file at `path`, open for reading. Raises: NotPlainFile, OSError."""
    return os.fdopen(open_plain(path), "rb")


def read_plain(path: Path, limit_bytes: int) -> bytes:
    """The content of a plain file. Raises: NotPlainFile; LibraryError when it is larger; OSError."""
    with reading(path) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise LibraryError(f"{path} is larger than {limit_bytes} bytes, which none of ours is; move it away")
    return data


def check_plain(path: Path, found: os.stat_result) -> None:
    """Raises: NotPlainFile when `found`, the `lstat` or `fstat` of `path`, is not of a plain file with one name."""
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise _refused(path, found)


def check_name(library: Path) -> None:
    """Raises: LibraryError when SQLite cannot open files in a folder of this name: not UTF-8, or too long."""
    name = os.fsencode(os.path.realpath(library))
    remedy = "rename it, or name another folder with --library"
    try:
        name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LibraryError(f"the name of the library's folder {library} is not UTF-8; {remedy}") from error
    if len(name) > LONGEST_FOLDER_BYTES:
        raise LibraryError(
            f"the name of the library's folder is {len(name)} bytes long, SQLite takes {LONGEST_FOLDER_BYTES}; {remedy}"
        )


def check_folder(folder: Path) -> None:
    """Raises: NotPlainFile when a folder inside a library is a link or no folder; nothing when it is not there."""
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(folder, found)


def make_folder(folder: Path) -> None:
    """Make a folder inside a library where it is missing. Raises: NotPlainFile, OSError."""
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)


def temporary_name(path: Path) -> Path:
    """A name beside `path`, for a file that takes its place when it is whole; nobody can have made it before."""
    return path.with_name(f"{path.name}.{os.urandom(6).hex()}{TEMPORARY}")


def new_file(path: Path, mode: int = 0o644) -> BinaryIO:
    """A new file, open for writing. Raises: FileExistsError, OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE_FLAGS, mode), "wb")


def _refused(path: Path, found: os.stat_result | None = None) -> NotPlainFile:
    try:
        found = os.lstat(path) if found is None else found
        what = _kind(found)
    except OSError:
        what = "not a plain file"
    return NotPlainFile(
        f"{path} is {what}, and a library holds plain files only; look at where it leads, then remove it or put a copy "
        "of the file in its place"
    )


def _kind(found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "a link"
    if stat.S_ISREG(found.st_mode):
        return f"a file with {found.st_nlink} names (hard links)"
    if stat.S_ISDIR(found.st_mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(found.st_mode) else "a device or a socket"
