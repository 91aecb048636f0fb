"""A folder that moved: the roots there get their new path, and every file keeps its row and its vector.

In: the path a root had, the path it has now. Out: how many files moved with it. Nothing is read but names.
Next: `prune.py`, what to do with files that are gone for good.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from indexer.base.errors import FolderNotFound, LibraryError
from indexer.catalog import own_roots, root_updates
from indexer.catalog.assets import count_live
from indexer.catalog.database import Catalog
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
        known = all_roots(connection)
        moving = _moving(known, old, new)
        taken = {root.path for root in known} - {root.path for root in moving}
        moved = [_moved(root, new / root.path.relative_to(old), taken) for root in moving]
        if not any(some_are_there(connection, root) for root in moved):
            raise LibraryError(f"none of the files looked for is below {new}; name the folder that {old} has become")
        root_updates.move(connection, moved)
        own_roots.name(connection, new)
        return sum(count_live(connection, Target(root, "", ())) for root in moved)


def _moved(root: Root, path: Path, taken: Collection[Path]) -> Root:
    if path in taken:
        raise LibraryError(
            f"{path} is indexed already, and its files were known by their content; "
            f"'mmsearch prune --offline {root.path}' forgets the old place"
        )
    return Root(root.id, path, device_of(path) if path.is_dir() else root.device)


def _moving(known: Sequence[Root], old: Path, new: Path) -> list[Root]:
    moving = [root for root in known if root.path == old or old in root.path.parents]
    if old == new or not moving:
        named = ", ".join(str(root.path) for root in known[:NAMED]) + (", ..." if len(known) > NAMED else "")
        why = "is where it was" if old == new else "is no indexed folder"
        inside = any(root.path in old.parents for root in known)
        hint = "what moved within one is found by 'mmsearch index'" if inside else f"indexed are: {named or 'none'}"
        raise LibraryError(f"{old} {why}; {hint}")
    return moving
