"""A folder that moved: the roots there get their new path, and every file keeps its row and its vector.

In: the path a root had, the path it has now. Out: how many files moved with it. Nothing is read but names.
Next: `prune.py`, what to do with files that are gone for good.
"""

from __future__ import annotations

import os
from pathlib import Path

from indexer.base.errors import FolderNotFound, LibraryError
from indexer.catalog import root_updates
from indexer.catalog.assets import count_live
from indexer.catalog.database import Catalog, Connection
from indexer.catalog.roots import Root, Target, all_roots, as_known, some_are_there
from indexer.files.roots import device_of
from indexer.files.unicode_names import as_on_disk

NAMED = 5  # roots in a message


def relocate(catalog: Catalog, old: Path, new: Path) -> int:
    """Give the root at `old`, and those below it, their place at `new`; the number of files that are found there now.

    The caller holds the writer's lock. `old` need not be there any more; its files are looked for at `new` by name,
    which the next `ingest` compares by size and time.
    Raises: FolderNotFound when `new` is no folder; LibraryError when `old` is no root, `new` is one already, or none
    of the files indexed at `old` is at `new`.
    """
    new = as_on_disk(Path(os.path.abspath(new)))
    if not new.is_dir():
        raise FolderNotFound(f"{new} is no folder; connect the drive, or name the place where the files are now")
    with catalog.begin() as connection:
        old = as_known(connection, old)
        moving = _moving(connection, old, new)
        moved = [(root, _moved(root, new / root.path.relative_to(old))) for root in moving]
        _refuse_taken(connection, moved)
        if not any(some_are_there(connection, after) for _, after in moved):
            raise LibraryError(f"none of the files looked for is below {new}; name the folder that {old} has become")
        root_updates.move(connection, [after for _, after in moved])
        return sum(count_live(connection, Target(after, "", ())) for _, after in moved)


def _moved(root: Root, path: Path) -> Root:
    return Root(root.id, path, device_of(path) if path.is_dir() else root.device)


def _moving(connection: Connection, old: Path, new: Path) -> list[Root]:
    known = all_roots(connection)
    moving = [root for root in known if root.path == old or old in root.path.parents]
    if old == new or not moving:
        named = ", ".join(str(root.path) for root in known[:NAMED]) + (", ..." if len(known) > NAMED else "")
        why = "is where it was" if old == new else "is no indexed folder"
        inside = any(root.path in old.parents for root in known)
        hint = "what moved within one is found by 'mmsearch index'" if inside else f"indexed are: {named or 'none'}"
        raise LibraryError(f"{old} {why}; {hint}")
    return moving


def _refuse_taken(connection: Connection, moved: list[tuple[Root, Root]]) -> None:
    ids = {root.id for root, _ in moved}
    others = {root.path for root in all_roots(connection) if root.id not in ids}
    for root, after in moved:
        if after.path in others:
            raise LibraryError(
                f"{after.path} is indexed already, and its files were known by their content; "
                f"'mmsearch prune --offline {root.path}' forgets the old place"
            )
