"""What is made right in the rows, without loss: references, counters, vectors that are wrong.

In: a writer's connection, ids that were found wrong. Out: rows that a sound catalog could have; the next index run
encodes what was taken out. Next: `visibility.py`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from sqlalchemy import Connection, delete, exists, func, insert, or_, select, update

from indexer.base.types import HIDDEN, Model
from indexer.catalog import checks, fused
from indexer.catalog.library import next_change
from indexer.catalog.root_updates import set_pairing_due
from indexer.catalog.schema import FUSED, assets, captions, library, roots, vectors
from indexer.catalog.scopes import chunked


def salvaged(connection: Connection, where: Path) -> None:
    """Make rows that came out of a damaged file fit together; the next index run looks at every caption again."""
    connection.execute(update(roots).values(pairing_due=True, captions_seen=None))
    references(connection, where)


def references(connection: Connection, where: Path) -> None:
    """Every row leads somewhere again.

    Files without a root get one that is offline: when their folder is indexed again, their vectors are found. Other
    rows that lead nowhere are deleted.
    """
    there = exists().where(roots.c.id == assets.c.root_id)
    for root_id in connection.scalars(select(assets.c.root_id).where(~there).distinct()).all():
        path = str(where / f"lost-folder-{root_id}")
        connection.execute(insert(roots).values(id=root_id, path=path, pairing_due=False))
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # a row may go before those that speak of it
    gone = 1
    while gone:  # what pointed to a row that went leads nowhere now
        gone = 0
        for table, column, lost in checks.references():
            if table is library:
                gone += connection.execute(update(library).where(lost).values({column: None})).rowcount
            elif table is not assets:
                gone += connection.execute(delete(table).where(lost)).rowcount


def counters(connection: Connection) -> None:
    """One row of `library`, with counters that no row is ahead of."""
    newest, found = checks.newest(connection), checks.counters(connection)
    change, generation = (max(numbers) for numbers in zip(newest, *found, strict=True))
    if len(found) == 1:
        connection.execute(update(library).values(change=change, generation=generation))
        return
    # the live model is the one that most can be found by
    by_model = select(vectors.c.model_id).where(vectors.c.kind != HIDDEN).group_by(vectors.c.model_id)
    model_id = connection.execute(by_model.order_by(func.count().desc()).limit(1)).scalar_one_or_none()
    connection.execute(delete(library))
    connection.execute(insert(library).values(id=1, model_id=model_id, change=change, generation=generation))


def drop_doubles(connection: Connection, model: Model) -> set[int]:
    """Delete the vectors that stand for what an older one stands for; their ids."""
    ids = set(checks.doubles(connection, model))
    for chunk in chunked(ids):
        connection.execute(delete(vectors).where(vectors.c.id.in_(chunk)))
    return ids


def replaceable(connection: Connection, online: Mapping[int, Path], ids: Collection[int]) -> set[int]:
    """Those of the vectors that can be computed again now: fusions, captions, files that are as they were indexed.

    Args:
        online: the folders that are there, by the id of their root.
    """
    follows = or_(vectors.c.role == FUSED, captions.c.text.is_not(None))  # from other vectors, or words on record
    columns = (vectors.c.id, follows, assets.c.root_id, assets.c.rel_path, assets.c.size_bytes, assets.c.mtime_ns)
    query = (
        select(*columns)
        .join(assets, assets.c.id == vectors.c.asset_id)
        .join(captions, captions.c.id == vectors.c.caption_id, isouter=True)
    )
    found: set[int] = set()
    for chunk in chunked(ids):
        for number, is_certain, root_id, rel_path, *state in connection.execute(query.where(vectors.c.id.in_(chunk))):
            if is_certain or (root_id in online and _state_of(online[root_id] / rel_path) == state):
                found.add(number)
    return found


def _state_of(path: Path) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def forget(connection: Connection, model: Model, ids: Collection[int]) -> set[int]:
    """Empty these vectors and the fusions they are part of; the roots in which any vector of the model is missing.

    The next run over these roots computes them again.
    """
    change = next_change(connection)
    photos: set[int] = set()
    texts: set[int] = set()
    for chunk in chunked(ids):
        mine = vectors.c.id.in_(chunk)
        photos.update(connection.scalars(select(vectors.c.asset_id).where(mine)))
        texts.update(connection.scalars(select(vectors.c.asset_id).where(mine, vectors.c.caption_id.is_(None))))
        connection.execute(update(vectors).where(mine).values(mu=None, logvar=None, change=change))
    fused.drop(connection, photos | fused.captioned_by(connection, texts))
    is_empty = or_(vectors.c.mu.is_(None), vectors.c.logvar.is_(None))
    emptied = select(assets.c.root_id).join(vectors, vectors.c.asset_id == assets.c.id)
    due = set(connection.scalars(emptied.where(vectors.c.model_id == model.id, is_empty).distinct()))
    due.update(connection.scalars(select(assets.c.root_id).where(checks.unencoded(model)).distinct()))
    set_pairing_due(connection, due)
    return due
