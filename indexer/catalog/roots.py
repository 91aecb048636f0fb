"""The folders a library was told to index, and whether each can be trusted today.

In: a folder a person named. Out: `Target`s, the roots and parts of roots to look at; why a root is offline.
A root that is missing, empty, or on another device without its files is offline: its assets are hidden, never touched.
Next: `scan.py`, which walks a target.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.base.errors import FolderNotFound, LibraryError
from indexer.catalog.reader import read
from indexer.files.excludes import is_excluded_by_default
from indexer.files.unicode_names import as_on_disk, nfc

if TYPE_CHECKING:
    from sqlalchemy import Connection

SAMPLE = 64  # files looked for, twice, before a root on another device is taken for another disk


@dataclass(frozen=True)
class Root:
    """A row of `roots`."""

    id: int
    path: Path
    device: int | None


@dataclass(frozen=True)
class Target:
    """What one run looks at: the part of `root` below `prefix` ('' for all), without the folders in `leave_out`."""

    root: Root
    prefix: str
    leave_out: tuple[Path, ...]


def all_roots(connection: Any) -> list[Root]:
    """Every root, by path."""
    rows = read(connection, "SELECT id, path, device FROM roots ORDER BY path")
    return [Root(number, Path(os.fsdecode(bytes(path))), device) for number, path, device in rows]


def targets_for(connection: Connection, folder: Path, library: Path) -> list[Target]:
    """A folder inside a known root is that part of the root; else it is a root, made if new, and so are those below it.

    `folder` is absolute. A root below another stays its own, since it may be a drive that comes and goes.
    """
    known = all_roots(connection)
    inside = [root for root in known if root.path == folder or root.path in folder.parents]
    top = max(inside, key=lambda root: len(root.path.parts)) if inside else _add(connection, folder)
    below = [root for root in known if folder in root.path.parents and root != top]
    leave_out = (library, *(root.path for root in below))
    prefix = folder.relative_to(top.path).as_posix() if folder != top.path else ""
    targets = [Target(top, prefix, leave_out)]
    for root in below:
        targets.append(Target(root, "", (library, *(other.path for other in below if other != root))))
    return targets


def known_targets(connection: Any, named: Path) -> list[Target]:
    """What is in the library of a folder as a person names it: a root, part of one, the roots below it.

    Raises: LibraryError when that is nothing.
    """
    folder, known = as_known(connection, named), all_roots(connection)
    inside = [root for root in known if root.path == folder or root.path in folder.parents]
    below = [Target(root, "", ()) for root in known if folder in root.path.parents]
    if not inside and not below:
        raise LibraryError(f"nothing of {named} is in the library; 'mmsearch status' lists the folders that are")
    if not inside:
        return below
    top = max(inside, key=lambda root: len(root.path.parts))
    prefix = folder.relative_to(top.path).as_posix() if folder != top.path else ""
    return [Target(top, prefix, ()), *below]


def as_known(connection: Any, folder: Path) -> Path:
    """The absolute path of a folder, its names spelt as on the disk, and the root in it as on record: no two of one.

    Not resolved: a link such as /media/drive is the name that stays.
    """
    typed = Path(os.path.abspath(folder))
    if str(typed).isascii():
        return typed
    spelt = as_on_disk(typed)
    for root in sorted(all_roots(connection), key=lambda one: -len(one.path.parts)):
        length = len(root.path.parts)
        if nfc(str(Path(*spelt.parts[:length]))) == nfc(str(root.path)) and not _is_other(spelt, root.path):
            return root.path.joinpath(*spelt.parts[length:])
    return spelt


def _is_other(spelt: Path, root: Path) -> bool:
    """Whether two spellings are two folders here, as they may be on Linux."""
    top = Path(*spelt.parts[: len(root.parts)])
    return top != root and top.exists() and root.exists() and not top.samefile(root)


def is_offline(connection: Connection, folder: Path) -> bool:
    """Whether `folder`, absolute, lies in a root that is offline."""
    folder = as_known(connection, folder)
    holders = [root for root in all_roots(connection) if root.path == folder or root.path in folder.parents]
    return any(offline_reason(connection, root) is not None for root in holders)


def checked_folder(connection: Connection, folder: Path) -> Path:
    """The absolute path of a folder that is there, or that is known and offline. Raises: FolderNotFound."""
    absolute = as_known(connection, folder)
    if not absolute.is_dir() and not is_offline(connection, absolute):
        what = "is not a folder" if absolute.exists() else "does not exist"
        raise FolderNotFound(f"{folder} {what}; name a folder of pictures or texts, as in 'mmsearch index ./photos'")
    return absolute


def offline_reason(connection: Any, root: Root) -> str | None:
    """Why the files of `root` cannot be there now, in words; None when they can."""
    try:
        device = device_of(root.path)
        with os.scandir(root.path) as listing:
            empty = all(is_excluded_by_default(entry.name) for entry in listing)
    except (FileNotFoundError, NotADirectoryError):
        return "is not there"
    except PermissionError:
        return None  # the scan records this
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if root.device is None or (device == root.device and not empty):
        return None
    if empty:
        # What is passed over by default may have been taken in again by a .mmsearchignore.
        return None if not _has_files(connection, root) or some_are_there(connection, root) else "is empty"
    # Device numbers change between mounts of one disk, so a new number alone proves nothing: the files decide.
    return None if some_are_there(connection, root) else "is on another device, without the files indexed there"


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


def remember_device(connection: Connection, root: Root) -> None:
    """Note the device a root was last seen on."""
    from sqlalchemy import update

    from indexer.catalog.schema import roots

    connection.execute(update(roots).where(roots.c.id == root.id).values(device=device_of(root.path)))


def _add(connection: Connection, folder: Path) -> Root:
    from indexer.catalog.schema import roots  # SQLAlchemy is for those who write: a search asks for offline roots too

    key = connection.execute(roots.insert().values(path=str(folder), pairing_due=False)).inserted_primary_key
    assert key is not None
    return Root(int(key[0]), folder, None)


def _has_files(connection: Any, root: Root) -> bool:
    query = "SELECT 1 FROM assets WHERE root_id = :root AND state = 'live' LIMIT 1"
    return bool(read(connection, query, root=root.id))


def some_are_there(connection: Any, root: Root) -> bool:
    """Whether any of a sample of the root's files lies below `root.path`; true of a root without files."""
    mine = "FROM assets WHERE root_id = :root AND state = 'live'"
    if _any_is_there(root, read(connection, f"SELECT rel_path {mine} LIMIT :sample", root=root.id, sample=SAMPLE)):
        return True
    # The first files may lie in one folder that was thrown away: the second look goes over all of them.
    ids = [number for (number,) in read(connection, f"SELECT id {mine} ORDER BY id", root=root.id)]
    spread = ",".join(str(number) for number in ids[:: max(1, len(ids) // SAMPLE)])
    return not ids or _any_is_there(root, read(connection, f"SELECT rel_path FROM assets WHERE id IN ({spread})"))


def _any_is_there(root: Root, rows: list[tuple[Any, ...]]) -> bool:
    return any(os.path.lexists(root.path / os.fsdecode(bytes(rel_path))) for (rel_path,) in rows)
