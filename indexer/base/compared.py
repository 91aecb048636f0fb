"""Files that were compared with their checksum before, and that nothing has written since.

To hash what a cold search maps, 80 MB of model and vectors, takes a sixth of its time. A checksum there tells damage
and not trust: what FAISS reads (`search/stored_index.py`) is compared each time, every byte of it.

In: a path, its checksum. Out: whether device, number, size and times of the file are those it had when it was compared
by this user. They are kept in `personal.py`. Next: `hashed_file.py`, which compares.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

from indexer.base import personal

NAME: Final = "compared"  # of the facts
FROM_BYTES: Final = 1 << 18  # less is compared faster than looked up
SETTLED_S: Final = (
    3.0  # a file so new may be written once more within one tick of its clock; FAT counts in steps of 2 s
)


def is_known(path: Path, checksum: str, *, place: Path | None = None) -> bool:
    """Whether the file was compared before. `place` stands for whichever file of its kind is there. Raises: OSError."""
    found = os.stat(path)
    if found.st_size < FROM_BYTES:
        return False
    return personal.remembered(NAME).get(str(place or path)) == _seen(path, checksum, found)


def remember(path: Path, checksum: str, found: os.stat_result, *, place: Path | None = None) -> None:
    """Say that the file had this checksum after `found`, its `stat`."""
    if found.st_size >= FROM_BYTES and time.time() - max(found.st_mtime, found.st_ctime) > SETTLED_S:
        personal.remember(NAME, str(place or path), _seen(path, checksum, found), level=logging.DEBUG)


def _seen(path: Path, checksum: str, found: os.stat_result) -> str:
    numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return " ".join((path.name, checksum, *map(str, numbers)))
