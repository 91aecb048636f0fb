"""A file whose checksum is of the bytes that went through this process, not of what lies on the disk a moment later.

In: the name of a file of a library, opened as `plain_files.py` does. Out: a new file and its SHA-256; the checksum of a
file; the content of one, which is compared with its checksum before anybody looks at it. Next: `durable.py`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from indexer.base.errors import LibraryCorrupt
from indexer.base.plain_files import new_file, open_plain, reading


class HashedFile:
    """A file that is being written: `checksum` and `size_bytes` are of what was written so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: Any) -> None:
        """Write bytes, or what shows its memory as bytes."""
        view = memoryview(data)
        self._file.write(view)
        self._hash.update(view)
        self.size_bytes += view.nbytes

    @property
    def checksum(self) -> str:
        """The SHA-256, hexadecimal."""
        return self._hash.hexdigest()


@contextmanager
def hashed_file(path: Path) -> Iterator[HashedFile]:
    """A new file. Raises: FileExistsError, OSError."""
    with new_file(path) as file:
        yield HashedFile(file)


def checksum_of(path: Path) -> str:
    """The SHA-256 of a plain file, hexadecimal. Raises: NotPlainFile, OSError."""
    with os.fdopen(open_plain(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_content(path: Path, checksum: str, size_bytes: int) -> bytes:
    """All of a plain file, where it is what it was. Raises: LibraryCorrupt, NotPlainFile, OSError."""
    with reading(path) as file:
        data = file.read(size_bytes + 1)
    if len(data) != size_bytes or hashlib.sha256(data).hexdigest() != checksum:
        raise LibraryCorrupt(f"{path} has changed since it was written (its checksum differs)")
    return data
