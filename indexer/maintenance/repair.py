"""What can be mended without loss: rows that lead nowhere, counters, vectors that are wrong, the index file.

In: an open catalog and the `Faults` that `doctor.py` found. Out: the folders whose files have to be encoded again,
which `checkup.py` does. A wrong vector is forgotten where its file is at hand or its words are on record, and stays
where they are not. One transaction: a crash leaves the library as it was, or mended. Next: `salvage.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Connection, delete, exists, func, insert, or_, select, update

from indexer.base.failpoints import reach
from indexer.catalog import fused, visibility
from indexer.catalog.database import Catalog, Model, live_model
from indexer.catalog.library import next_change
from indexer.catalog.roots import all_roots, offline_reason
from indexer.catalog.schema import FUSED, HIDDEN, assets, captions, library, roots, vectors
from indexer.catalog.scopes import chunked
from indexer.maintenance.compare import Faults
from indexer.maintenance.doctor import doubles, newest, orphans, unencoded
from indexer.search import index_files as generations


def mend(catalog: Catalog, where: Path, faults: Faults) -> list[Path]:
    """Mend the library in folder `where`; the folders to bring up to date afterwards.

    The caller holds the writer's lock.
    """
    with catalog.begin() as connection:
        _counters(connection)
        references(connection, where)
        model = live_model(connection)
        due: list[Path] = []
        if model is not None:
            removed = list(connection.scalars(doubles(model)))
            for chunk in chunked(removed):
                connection.execute(delete(vectors).where(vectors.c.id.in_(chunk)))
            certain = _replaceable(connection, faults.doubtful - faults.unusable)
            videos = _replaceable(connection, faults.videos)
            due = _forget(connection, model, faults.unusable | certain | videos)
            visibility.refresh(connection)
        reach("repair.mending")
    reach("repair.mended")
    if model is not None and faults.doubtful <= certain | faults.unusable | set(removed):
        generations.remake(catalog, where / generations.VECTORS_FOLDER, model)
        reach("repair.remade")
    return due


def _drop_orphans(connection: Connection) -> None:
    """Delete the rows that lead nowhere, and those that then do."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # a row may go before those that speak of it
    gone = 1
    while gone:
        gone = 0
        for table, column, lost in orphans():
            if table is library:
                gone += connection.execute(update(library).where(lost).values({column: None})).rowcount
            elif table is not assets:  # they are kept: `references` gives them a root
                gone += connection.execute(delete(table).where(lost)).rowcount


def references(connection: Connection, where: Path) -> None:
    """Every row leads somewhere again.

    Files without a root get one that is offline: when their folder is indexed again, their vectors are found. Other
    rows that lead nowhere are deleted.
    """
    there = exists().where(roots.c.id == assets.c.root_id)
    for root_id in connection.scalars(select(assets.c.root_id).where(~there).distinct()).all():
        path = str(where / f"lost-folder-{root_id}")
        connection.execute(insert(roots).values(id=root_id, path=path, pairing_due=False))
    _drop_orphans(connection)


def _counters(connection: Connection) -> None:
    change, generation = newest(connection)
    found = connection.execute(select(library)).all()
    if len(found) == 1:
        values = {"change": max(change, found[0].change), "generation": max(generation, found[0].generation)}
        connection.execute(update(library).values(values))
        return
    # the live model is the one that most can be found by
    by_model = select(vectors.c.model_id).where(vectors.c.kind != HIDDEN).group_by(vectors.c.model_id)
    model_id = connection.execute(by_model.order_by(func.count().desc()).limit(1)).scalar_one_or_none()
    connection.execute(delete(library))
    connection.execute(insert(library).values(id=1, model_id=model_id, change=change, generation=generation))


def _replaceable(connection: Connection, ids: set[int]) -> set[int]:
    """Those of the vectors that can be computed again now: from a file that is as it was indexed, or from words."""
    online = {root.id: root.path for root in all_roots(connection) if offline_reason(connection, root) is None}
    columns = (vectors.c.id, vectors.c.role, captions.c.text, assets.c.root_id, assets.c.rel_path)
    query = (
        select(*columns, assets.c.size_bytes, assets.c.mtime_ns)
        .join(assets, assets.c.id == vectors.c.asset_id)
        .join(captions, captions.c.id == vectors.c.caption_id, isouter=True)
    )
    found: set[int] = set()
    for chunk in chunked(ids):
        for row in connection.execute(query.where(vectors.c.id.in_(chunk))):
            follows = row.role == FUSED or row.text is not None
            root = online.get(row.root_id)
            if follows or (root and _is_as_indexed(root / row.rel_path, row.size_bytes, row.mtime_ns)):
                found.add(row.id)
    return found


def _is_as_indexed(path: Path, size_bytes: int, mtime_ns: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (size_bytes, mtime_ns)


def _forget(connection: Connection, model: Model, ids: set[int]) -> list[Path]:
    """Take out these vectors and the fusions they are part of; the next run over their folders computes them again."""
    change = next_change(connection)
    photos: set[int] = set()
    texts: set[int] = set()
    for chunk in chunked(ids):
        mine = vectors.c.id.in_(chunk)
        photos.update(connection.scalars(select(vectors.c.asset_id).where(mine)))
        texts.update(connection.scalars(select(vectors.c.asset_id).where(mine, vectors.c.caption_id.is_(None))))
        connection.execute(update(vectors).where(mine).values(mu=None, logvar=None, change=change))
    fused.drop(connection, photos | fused.captioned_by(connection, texts))
    waiting = or_(vectors.c.mu.is_(None), vectors.c.logvar.is_(None))
    waits = select(assets.c.root_id).join(vectors, vectors.c.asset_id == assets.c.id)
    root_ids = set(connection.scalars(waits.where(vectors.c.model_id == model.id, waiting).distinct()))
    root_ids.update(connection.scalars(select(assets.c.root_id).where(unencoded(model)).distinct()))
    for chunk in chunked(root_ids):
        connection.execute(update(roots).where(roots.c.id.in_(chunk)).values(pairing_due=True))
    everything = all_roots(connection)
    return [root.path for root in everything if root.id in root_ids and offline_reason(connection, root) is None]
