"""What changes in the rows of `roots`: new folders, the disk they are on, whether captions are in step with the files.

In: a writer's connection. Out: rows. `pairing_due` is set before files change and cleared when captions and fusions
follow from them again, so that an interrupted run is taken up. Next: `scopes.py`, then `assets.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sqlalchemy import Connection, select, update

from indexer.catalog.roots import Root
from indexer.catalog.schema import roots


def add(connection: Connection, folder: Path) -> Root:
    """A new root."""
    key = connection.execute(roots.insert().values(path=str(folder), pairing_due=False)).inserted_primary_key
    assert key is not None
    return Root(int(key[0]), folder, None)


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
