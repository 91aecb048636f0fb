"""Whether an indexed folder can be trusted today, by what its disk shows.

In: the path of a root, the disk it was last seen on. Out: why it is offline, in words; a number for a disk; the
spelling of a folder that is on record. A root that is missing, empty, or on another device without its files is
offline: its files are hidden, never touched. Next: `scan.py`, which walks it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from indexer.files.excludes import is_excluded_by_default
from indexer.files.unicode_names import as_on_disk, nfc


def offline_reason(root: Path, device: int | None, some_are_there: Callable[[], bool]) -> str | None:
    """Why the files of `root` cannot be there now, in words; None when they can.

    Args:
        device: `device_of` the root when it was last indexed; None before that.
        some_are_there: whether any of the files on record is found; asked only where the folder alone does not tell.
    """
    try:
        found = device_of(root)
        with os.scandir(root) as listing:
            empty = all(is_excluded_by_default(entry.name) for entry in listing)
    except (FileNotFoundError, NotADirectoryError):
        return "is not there"
    except PermissionError:
        return None  # the scan records this
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if device is None or (found == device and not empty) or some_are_there():
        return None
    # What is passed over by default may have been taken in again by a .mmsearchignore, and device numbers change
    # between mounts of one disk: neither proves anything, the files decide.
    return "is empty" if empty else "is on another device, without the files indexed there"


def device_of(path: Path) -> int:
    """A number for the disk that a folder is on: of its device number, its file system's id and its size.

    The next stick in the same socket gets the device number of the last one. FAT has no id, but hardly two have as many
    blocks. A disk whose number changes without need costs a look for one of its files, no more. Raises: OSError.
    """
    number = os.stat(path).st_dev
    if not hasattr(os, "statvfs"):  # Windows: the number is the volume's own
        return number
    disk = os.statvfs(path)
    said = repr((number, disk.f_fsid, disk.f_frsize * disk.f_blocks)).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=7).digest())


def as_known(folder: Path, roots: Iterable[Path]) -> Path:
    """The absolute path of a folder, its names spelt as on the disk, and the root it lies in spelt as on record.

    Not resolved: a link such as /media/drive is the name that stays.
    """
    typed = Path(os.path.abspath(folder))
    if str(typed).isascii():
        return typed
    spelt = as_on_disk(typed)
    for root in sorted(roots, key=lambda one: -len(one.parts)):
        length = len(root.parts)
        if nfc(str(Path(*spelt.parts[:length]))) == nfc(str(root)) and not _is_other(spelt, root):
            return root.joinpath(*spelt.parts[length:])
    return spelt


def _is_other(spelt: Path, root: Path) -> bool:
    """Whether two spellings are two folders here, as they may be on Linux."""
    top = Path(*spelt.parts[: len(root.parts)])
    return top != root and top.exists() and root.exists() and not top.samefile(root)
