"""One writer at a time, by a lock of the operating system: it ends with its process, however that ends.

In: the library's folder. Out: a context manager; inside it this process alone writes. Readers take no lock.
Next: `scan.py`.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.base.errors import LibraryError, LibraryLocked

LOCK_FILE = "writer.lock"


@contextmanager
def writer_lock(library: Path) -> Iterator[None]:
    """Hold the writer's lock of the library in folder `library`.

    Raises: LibraryLocked, naming the holder; LibraryError when the folder cannot be written or the disk knows no locks.
    """
    try:
        descriptor = os.open(library / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LibraryError(
            f"library {library} cannot be written ({error.strerror}); name another with --library"
        ) from error
    try:
        if not _try_lock(descriptor):
            raise LibraryLocked(
                f"library {library} is being written by {_holder(descriptor)}; wait until it is done, or stop it"
            )
        _write_holder(descriptor, library)
        yield
    finally:
        os.close(
            descriptor
        )  # releases the lock; the file stays, since removing it would let two writers hold two files


def _write_holder(descriptor: int, library: Path) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    except OSError as error:
        raise LibraryError(
            f"library {library} cannot be written ({error.strerror}); make room and run the same command again"
        ) from error


def _holder(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, 512).decode(errors="replace") or "another process"


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
