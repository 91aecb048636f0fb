"""What changes in the rows of `roots`: new folders, the disk they are on, whether captions are in step with the files.

In: a writer's connection. Out: rows; the `Target`s of an index run. `pairing_due` is set before files change, and is
cleared when captions and fusions follow from them again: an interrupted run is taken up. Next: `scopes.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sqlalchemy import Connection, select, update

from indexer.catalog.roots import Root, Target, all_roots, holders, part_of
from indexer.catalog.schema import roots


def add(connection: Connection, folder: Path) -> Root:
    """A new root."""
    key = connection.execute(roots.insert().values(path=str(folder), pairing_due=False)).inserted_primary_key
    assert key is not None
    return Root(int(key[0]), folder, None)


def targets_for(connection: Connection, folder: Path, library: Path) -> list[Target]:
    """A folder inside a known root is that part of the root; else it is a root, made if new, and so are those below it.

    `folder` is absolute. A root below another stays its own, since it may be a drive that comes and goes.
    """
    known = all_roots(connection)
    inside = holders(known, folder)
    top = inside[0] if inside else add(connection, folder)
    below = [root for root in known if folder in root.path.parents and root != top]
    targets = [part_of(top, folder, (library, *(root.path for root in below)))]
    for root in below:
        targets.append(Target(root, "", (library, *(other.path for other in below if other != root))))
    return targets


def move(connection: Connection, moved: Collection[Root]) -> None:
    """Give roots their new path and device. In two steps: the new path of one may be the old one of another."""
    for root in moved:
        connection.execute(update(roots).where(roots.c.id == root.id).values(path=f"\0{root.id}"))
    for root in moved:
        connection.execute(update(roots).where(roots.c.id == root.id).values(path=str(root.path), device=root.device))


def remember_device(connection: Connection, root: Root, device: int) -> None:
    """Note the disk a root was last seen on, see `files.roots.device_of`."""
    connection.execute(update(roots).where(roots.c.id == root.id).values(device=device))


def pairing_of(connection: Connection, root: Root) -> tuple[bool, str | None]:
    """Whether the captions of a root have to be looked at, and the digest of its caption files as last read."""
    query = select(roots.c.pairing_due, roots.c.captions_seen).where(roots.c.id == root.id)
    is_due, captions_seen = connection.execute(query).one()
    return is_due, captions_seen


def set_pairing_due(connection: Connection, root_ids: Collection[int], *, due: bool = True) -> None:
    """Note that captions of these roots may be out of step with their files, or that they are not."""
    connection.execute(update(roots).where(roots.c.id.in_(root_ids)).values(pairing_due=due))


def paired(connection: Connection, root: Root, captions_seen: str | None) -> None:
    """Captions and fusions are in step with the files; `captions_seen` None leaves the digest as it is."""
    seen = {} if captions_seen is None else {"captions_seen": captions_seen}
    connection.execute(update(roots).where(roots.c.id == root.id).values(pairing_due=False, **seen))
