"""The socket of a server: this user's alone, one server for each library, and gone when the server is.

In: the socket's path. Out: a socket that listens there, a lock. A socket that a dead server left is replaced.
Next: `connections.py`, which accepts.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from indexer.base.lock import exclusive
from mmsearch.errors import LibraryError
from mmsearch.server.client import is_private

BACKLOG: Final = 64


class Listening:
    """A socket at a path; `close` may be called again."""

    def __init__(self, path: Path, line: socket.socket) -> None:
        self.path = path
        self.line = line
        self._identity = _identity(path)

    def is_there(self) -> bool:
        """Whether clients still find it: a path may be removed or taken over."""
        return self._identity is not None and _identity(self.path) == self._identity

    def close(self) -> None:
        """Hear no more; what took over the path stays."""
        if self.is_there():
            self.path.unlink(missing_ok=True)
        self._identity = None
        self.line.close()


@contextlib.contextmanager
def listening(path: Path) -> Iterator[Listening]:
    """A socket at `path`, in the place of one that a dead server left, since its lock was free.

    Raises: LibraryError: it cannot be made there.
    """
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        line.bind(str(path))  # in a folder that no other user may enter
        os.chmod(path, 0o600)
        line.listen(BACKLOG)
        line.setblocking(False)
    except OSError as error:
        line.close()
        raise LibraryError(f"{path} cannot be listened on ({error.strerror or error}); set XDG_RUNTIME_DIR") from error
    opened = Listening(path, line)
    try:
        yield opened
    finally:
        opened.close()


def make_private(folder: Path) -> None:
    """Make the folder of sockets where it is missing. Raises: LibraryError: it is not this user's alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_private(folder):
            return
    except OSError as error:
        raise LibraryError(f"{folder} cannot be used for a socket ({error.strerror}); set XDG_RUNTIME_DIR") from error
    raise LibraryError(f"{folder} is not this user's alone; run 'chmod 700 {folder}' or set XDG_RUNTIME_DIR")


def lock_of(path: Path) -> contextlib.AbstractContextManager[None]:
    """One server a library. Raises: LibraryLocked, LibraryError."""
    return exclusive(
        path.with_suffix(".lock"),
        lambda holder: f"this library is served already by {holder}; nothing to do",
        lambda error: f"{path.parent} cannot be used for a socket ({error.strerror}); set XDG_RUNTIME_DIR",
        mode=0o600,
    )


def is_same_user(line: socket.socket) -> bool:
    """Whether the other end is this user, where the system tells (Linux); elsewhere the folder's mode stands for it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(uid == os.getuid())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
