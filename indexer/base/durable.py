"""Write files so that they survive a power cut; checksum them; set damaged ones aside.

In: a path. Out: data forced to the disk, a checksum, a new name. A file is replaced in four steps: write to a temporary
name, `sync` the file, rename it, `sync` its folder. A crash at any moment then leaves the old file or the new one.
Next: `search/index_files.py`, which writes the index file so.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import time
from pathlib import Path

from indexer.base.disk_errors import twice
from indexer.base.plain_files import open_plain

log = logging.getLogger(__name__)


def sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to the disk (fsync). Raises: NotPlainFile, OSError."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder, and needs no fsync of it
        return
    descriptor = os.open(path, os.O_RDONLY) if path.is_dir() else open_plain(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; read again once where the disk failed."""

    def digest() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return twice(digest)


def set_aside(path: Path) -> None:
    """Rename a damaged file, if it is there, to `<name>.bad-<time>`; it is never deleted."""
    if os.path.lexists(path):  # a link is renamed itself, not what it leads to
        aside = aside_name(path)
        os.replace(path, aside)
        log.warning("%s is damaged; kept as %s", path, aside.name)


def aside_name(path: Path) -> Path:
    """`<name>.bad-<time>`, with a number where that name is taken already."""
    stem = f"{path.name}.bad-{time.strftime('%Y%m%dT%H%M%S')}"
    taken = {one.name for one in path.parent.glob(f"{glob.escape(path.name)}.bad-*")}
    names = (stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3)))
    return path.with_name(next(name for name in names if name not in taken))
