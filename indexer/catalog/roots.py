"""The folders a library was told to index: which there are, what of them is meant, whether each is there.

In: a folder that a person named. Out: `Target`s, the roots and parts of roots to look at; why a root is offline.
A search asks here too, so these are questions of `reader.py`. Next: `root_updates.py`, which writes these rows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.base.errors import FolderNotFound, LibraryCorrupt, LibraryError, RowCorrupt
from indexer.catalog.columns import MOST_ROOTS, RULES, check
from indexer.catalog.reader import listed, read
from indexer.files import roots as disk

if TYPE_CHECKING:
    from indexer.catalog.reader import Snapshot

SAMPLE = 64  # files looked for, twice, before a root on another device is taken for another disk


@dataclass(frozen=True, slots=True)
class Root:
    """A row of `roots`."""

    id: int
    path: Path
    device: int | None


@dataclass(frozen=True, slots=True)
class Target:
    """What one run looks at: the part of `root` below `prefix` ('' for all), without the folders in `leave_out`."""

    root: Root
    prefix: str
    leave_out: tuple[Path, ...]


def all_roots(connection: Snapshot) -> list[Root]:
    """Every root, by path. Raises: RowCorrupt; LibraryCorrupt where they are more than anybody names."""
    roots, wrong = sound_roots(connection)
    for error in wrong.values():
        raise error
    return roots


def sound_roots(connection: Snapshot) -> tuple[list[Root], dict[int, RowCorrupt]]:
    """Every root that can be used, by path; what is wrong with the others, by id."""
    roots: list[Root] = []
    wrong: dict[int, RowCorrupt] = {}
    query = "SELECT id, path, device FROM roots ORDER BY path LIMIT :most"
    for number, path, device in read(connection, query, most=MOST_ROOTS + 1):
        try:
            check("roots", number, path=path, device=device)
        except RowCorrupt as error:
            wrong[number] = error
        else:
            roots.append(Root(number, Path(os.fsdecode(path)), device))
    if len(roots) + len(wrong) > MOST_ROOTS:
        raise LibraryCorrupt(
            f"the catalog lists more than {MOST_ROOTS:,} folders, which nobody indexed one by one; "
            "run 'mmsearch doctor --repair', which sets those without files aside"
        )
    return roots, wrong


def holders(roots: Sequence[Root], folder: Path) -> list[Root]:
    """The roots that are `folder` or lie above it, the nearest first."""
    above = [root for root in roots if root.path == folder or root.path in folder.parents]
    return sorted(above, key=lambda root: -len(root.path.parts))


def part_of(root: Root, folder: Path, leave_out: tuple[Path, ...] = ()) -> Target:
    """The part of `root` that `folder`, at or below it, is."""
    return Target(root, folder.relative_to(root.path).as_posix() if folder != root.path else "", leave_out)


def known_targets(connection: Snapshot, named: Path) -> list[Target]:
    """What is in the library of a folder as a person names it: a root, part of one, the roots below it.

    Raises: LibraryError when that is nothing.
    """
    folder, known = as_known(connection, named), all_roots(connection)
    inside = [part_of(root, folder) for root in holders(known, folder)[:1]]
    targets = inside + [Target(root, "", ()) for root in known if folder in root.path.parents]
    if not targets:
        raise LibraryError(f"nothing of {named} is in the library; 'mmsearch status' lists the folders that are")
    return targets


def checked_folder(connection: Snapshot, folder: Path) -> Path:
    """The absolute path of a folder that is there, or that is known and offline. Raises: FolderNotFound."""
    absolute = as_known(connection, folder)
    if not absolute.is_dir() and not is_offline(connection, absolute):
        what = "is not a folder" if absolute.exists() else "does not exist"
        raise FolderNotFound(f"{folder} {what}; name a folder of pictures or texts, as in 'mmsearch index ./photos'")
    return absolute


def as_known(connection: Snapshot, folder: Path) -> Path:
    """The absolute path of a folder, spelt as on the disk and as on record."""
    return disk.as_known(folder, [root.path for root in all_roots(connection)])


def is_offline(connection: Snapshot, folder: Path) -> bool:
    """Whether `folder`, absolute, lies in a root that is offline."""
    found = holders(all_roots(connection), as_known(connection, folder))
    return any(offline_reason(connection, root) is not None for root in found)


def offline_reason(connection: Snapshot, root: Root) -> str | None:
    """Why the files of `root` cannot be there now, in words; None when they can."""
    return disk.offline_reason(root.path, root.device, lambda: some_are_there(connection, root))


def some_are_there(connection: Snapshot, root: Root) -> bool:
    """Whether any of a sample of the root's files lies below `root.path`; true of a root without files."""
    mine = "FROM assets WHERE root_id = :root AND state = 'live'"

    def found(query: str, **values: object) -> bool:
        rows = read(connection, query, **values)
        stays = RULES["assets"]["rel_path"].holds
        return any(os.path.lexists(root.path / os.fsdecode(path)) for (path,) in rows if stays(path))

    if found(f"SELECT rel_path {mine} LIMIT :sample", root=root.id, sample=SAMPLE):
        return True
    # The first files may lie in one folder that was thrown away: the second look goes over all of them.
    ids = [number for (number,) in read(connection, f"SELECT id {mine} ORDER BY id", root=root.id)]
    spread = listed(ids[:: max(1, len(ids) // SAMPLE)])
    return not ids or found(f"SELECT rel_path FROM assets WHERE id IN ({spread})")
