"""One process at a time, by a lock of the operating system: it ends with its process, however that ends.

In: the file of a lock. Out: a context manager; inside it this process alone holds the file. A library has one lock for
whoever writes it (readers take none), and a server takes one for its socket. Next: `../files/scan.py`.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.base.disk_errors import in_words
from indexer.base.errors import LibraryError, LibraryLocked
from indexer.base.plain_files import open_plain

LOCK_FILE = "writer.lock"


@contextmanager
def writer_lock(library: Path) -> Iterator[None]:
    """Hold the writer's lock of the library in folder `library`.

    Raises: LibraryLocked, naming the holder; LibraryError when the folder cannot be written or the disk knows no locks.
    """

    def locked(holder: str) -> str:
        return f"library {library} is being written by {holder}; wait until it is done, or stop it"

    def unusable(error: OSError) -> str:
        return f"library {library} cannot be written {in_words(error, library, 'name another with --library')}"

    with exclusive(library / LOCK_FILE, locked, unusable):
        yield


@contextmanager
def exclusive(
    path: Path, locked: Callable[[str], str], unusable: Callable[[OSError], str], mode: int = 0o644
) -> Iterator[None]:
    """Hold the lock of the file at `path`, which is made where it is missing and says who holds it.

    Args:
        path: the file; it stays afterwards, since two processes could hold two files if it were removed.
        locked: the message, given the holder, where another process has it.
        unusable: the message where the file cannot be opened or written.
        mode: of a new file.

    Raises:
        LibraryLocked: another process holds it.
        NotPlainFile: it is a link or a device: to write who holds it would change another file.
        LibraryError: the file cannot be used.
    """
    try:
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT, mode)
    except OSError as error:
        raise LibraryError(unusable(error)) from error
    try:
        if not _try_lock(descriptor):
            raise LibraryLocked(locked(_holder(descriptor)))
        try:
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            raise LibraryError(unusable(error)) from error
        yield
    finally:
        os.close(descriptor)  # releases the lock


def _holder(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return " ".join(os.read(descriptor, 512).decode(errors="replace").split()) or "another process"


if sys.platform == "win32":
    import msvcrt

    _FAR_BYTE = 1 << 20  # Windows hides locked bytes from readers, so the lock sits beyond the holder's name

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _FAR_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise LibraryError(
                f"this disk knows no locks ({error.strerror}); put the library on another one"
            ) from error
        return True
