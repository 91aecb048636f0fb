"""Which folders one run looks at.

In: a folder that a person named. Out: `Target`s; a new root where the folder lies in none. Next: `scan.py`.
"""

from __future__ import annotations

from pathlib import Path

from indexer.base.errors import FolderNotFound
from indexer.catalog import root_updates
from indexer.catalog.database import Connection
from indexer.catalog.roots import Target, all_roots, as_known, holders, is_offline, part_of


def checked_folder(connection: Connection, folder: Path) -> Path:
    """The absolute path of a folder that is there, or that is known and offline. Raises: FolderNotFound."""
    absolute = as_known(connection, folder)
    if not absolute.is_dir() and not is_offline(connection, absolute):
        what = "is not a folder" if absolute.exists() else "does not exist"
        raise FolderNotFound(f"{folder} {what}; name a folder of pictures or texts, as in 'mmsearch index ./photos'")
    return absolute


def targets_for(connection: Connection, folder: Path, library: Path) -> list[Target]:
    """A folder inside a known root is that part of the root; else it is a root, made if new, and so are those below it.

    `folder` is absolute. A root below another stays its own, since it may be a drive that comes and goes.
    """
    known = all_roots(connection)
    inside = holders(known, folder)
    top = inside[0] if inside else root_updates.add(connection, folder)
    below = [root for root in known if folder in root.path.parents and root != top]
    targets = [part_of(top, folder, (library, *(root.path for root in below)))]
    for root in below:
        targets.append(Target(root, "", (library, *(other.path for other in below if other != root))))
    return targets
