"""Files that have to survive a power cut, be what they were, or be kept although nothing trusts them any more.

In: a path. Out: bytes forced to the disk, a checksum, a second name. Write to a temporary name, `sync` the file, rename
it, `sync` its folder: then a crash at any moment leaves the old file or the new one. Next: `generations.py`.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders, and keeps names in order by itself
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def set_aside(path: Path) -> None:
    """Rename a file that is not to be trusted; it is kept for whoever wants to know why."""
    if path.exists():
        aside = aside_name(path)
        os.replace(path, aside)
        log.warning("%s is damaged; kept as %s", path, aside.name)


def aside_name(path: Path) -> Path:
    """A name beside `path` that no file has, with the time: two in one second, or a clock set back, stay two."""
    stem = f"{path.name}.bad-{time.strftime('%Y%m%dT%H%M%S')}"
    taken = {one.name for one in path.parent.glob(f"{glob.escape(path.name)}.bad-*")}
    names = (stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3)))
    return path.with_name(next(name for name in names if name not in taken))
