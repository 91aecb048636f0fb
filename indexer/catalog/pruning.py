"""Deleting rows, here alone: files that are gone for good, with all that belongs to them.

In: a writer's connection, ids of files, a folder. Out: what is missing there; a catalog that never had them.
Next: `checks.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import Connection, delete, or_, select

from indexer.catalog import fused
from indexer.catalog.root_updates import set_pairing_due
from indexer.catalog.roots import Target
from indexer.catalog.schema import MISSING, assets, captions, metadata, notices, roots, vectors
from indexer.catalog.scopes import below, within

# The columns of other tables that name a file: what is said there goes with it.
POINTING: Final = tuple(
    key.parent
    for table in metadata.sorted_tables
    if table not in (assets, captions, vectors)
    for key in table.foreign_keys
    if key.column is assets.c.id
)


def files(connection: Connection, target: Target, *, missing_only: bool) -> Iterator[tuple[int, str]]:
    """The files of a target, by their ids, with their paths below the root.

    With `missing_only` those that the last index run did not find.
    """
    query = select(assets.c.id, assets.c.rel_path).where(below(target))
    query = query.where(assets.c.state == MISSING) if missing_only else query
    yield from ((number, rel_path) for number, rel_path in connection.execute(query))


def delete_files(connection: Connection, ids: Sequence[int]) -> None:
    """Delete files and what points to them, no more at once than fit a statement.

    A photo that stays and loses a caption loses its fusion too: the next run makes it again.
    """
    photos = fused.captioned_by(connection, ids) - set(ids)
    fused.drop(connection, photos)
    root_ids = select(assets.c.root_id).where(assets.c.id.in_(photos)).distinct()
    set_pairing_due(connection, list(connection.scalars(root_ids)))
    lost = or_(captions.c.asset_id.in_(ids), captions.c.text_asset_id.in_(ids))
    of_captions = vectors.c.caption_id.in_(select(captions.c.id).where(lost))
    connection.execute(delete(vectors).where(or_(vectors.c.asset_id.in_(ids), of_captions)))
    connection.execute(delete(captions).where(lost))
    for column in POINTING:
        connection.execute(delete(column.table).where(column.in_(ids)))
    connection.execute(delete(assets).where(assets.c.id.in_(ids)))


def delete_root(connection: Connection, target: Target) -> None:
    """Delete what was noticed in a target, and its root where the target is all of it."""
    mine = (notices.c.root_id == target.root.id, within(notices.c.rel_path, target.prefix))
    connection.execute(delete(notices).where(*mine))
    if not target.prefix:
        connection.execute(delete(roots).where(roots.c.id == target.root.id))
