"""What may be wrong with the rows, questions that a sound catalog answers with nothing; and how it is made right.

In: a snapshot, for the questions; a writer's connection and the ids of wrong vectors, to mend. Out: counts, ids and
rows, typed; or rows that a sound catalog could have. Mending loses nothing: the next index run encodes what was taken
out. Next: `visibility.py`.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from indexer.base.disk_errors import FAILING
from indexer.base.errors import LibraryError
from indexer.base.types import HIDDEN, Modality, Model
from indexer.catalog import fused, own_roots
from indexer.catalog.library import next_change
from indexer.catalog.root_updates import set_pairing_due
from indexer.catalog.schema import (
    FUSED,
    LIVE,
    OWN,
    assets,
    captions,
    generations,
    library,
    metadata,
    models,
    roots,
    vectors,
)
from indexer.catalog.scopes import chunked, is_encoded

VECTORS_AT_ONCE: Final = 8192
PRIMARY: Final = 0xFF  # of an error's number in SQLite; the rest says more of it


@dataclass(frozen=True, slots=True)
class StoredVector:
    """A row of `vectors`; its blobs should be float16 `[d]` each, or both be missing until the next run (`is_due`)."""

    id: int
    kind: int
    change: int
    mu: bytes
    logvar: bytes
    is_due: bool


@dataclass(frozen=True, slots=True)
class OwnVector:
    """The vector of a file or, where `text` is given, of a caption, and where that comes from."""

    id: int
    asset_id: int
    mu: bytes
    logvar: bytes
    text: str | None
    root_id: int
    rel_path: str
    modality: Modality
    content_hash: bytes | None


def database(connection: Connection) -> list[str]:
    """What the database finds wrong with its own file.

    Raises: LibraryError where the disk did not give a page, which says nothing of the page.
    """
    if connection.dialect.name != "sqlite":
        return []  # a server checks its own files
    said = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
    codes = [int(code) for line in said for code in re.findall(r"error code=(\d+)", line)]
    if any(code & PRIMARY == sqlite3.SQLITE_IOERR for code in codes):
        raise LibraryError(f"the catalog cannot be read ({FAILING.what}); {FAILING.remedy}")
    return [] if said == ["ok"] else said


def dangling(connection: Connection) -> list[tuple[str, str, int]]:
    """Every column (its table first) that names rows which are not there, and in how many rows it does."""
    counted = [(table.name, name, _count(connection, table, lost)) for table, name, lost in references()]
    return [one for one in counted if one[2]]


def references() -> Iterator[tuple[Table, str, ColumnElement[bool]]]:
    """Every reference: the table, the column, the condition of a row in which it leads nowhere."""
    for table in reversed(metadata.sorted_tables):
        for column in table.columns:
            for key in column.foreign_keys:
                parent = key.column.table.alias()
                there = exists().where(parent.c[key.column.name] == column)
                yield table, column.name, and_(column.is_not(None), ~there)


def counters(connection: Connection) -> list[tuple[int, int]]:
    """The last change of a vector and the last generation of an index file, as counted in the one row of `library`."""
    found = connection.execute(select(library.c.change, library.c.generation))
    return [(change, generation) for change, generation in found]


def newest(connection: Connection) -> tuple[int, int]:
    """The highest change and generation of any row: the counters may not be below."""
    change = connection.execute(select(_highest(vectors.c.change))).scalar_one()
    query = select(_highest(generations.c.change), _highest(generations.c.generation))
    written, generation = connection.execute(query).one()
    return max(change or 0, written or 0), generation or 0


def other_models(connection: Connection, model: Model) -> list[tuple[str, int]]:
    """The names of models that are not live, and how many vectors each has."""
    query = select(models.c.name, func.count()).join(vectors, vectors.c.model_id == models.c.id)
    found = connection.execute(query.where(models.c.id != model.id).group_by(models.c.id, models.c.name))
    return [(name, count) for name, count in found]


def doubles(connection: Connection, model: Model) -> list[int]:
    """Ids of the vectors that stand for what an older one stands for."""
    older = vectors.alias()
    same = and_(
        older.c.asset_id == vectors.c.asset_id,
        older.c.model_id == vectors.c.model_id,
        older.c.role == vectors.c.role,
        func.coalesce(older.c.caption_id, 0) == func.coalesce(vectors.c.caption_id, 0),
        older.c.id < vectors.c.id,
    )
    query = select(vectors.c.id).where(vectors.c.model_id == model.id, exists().where(same))
    return list(connection.scalars(query))


def count_unencoded(connection: Connection, model: Model) -> int:
    """How many files are there and have no vector of their own."""
    return _count(connection, assets, unencoded(model))


def unencoded(model: Model) -> ColumnElement[bool]:
    """The condition of such a file."""
    return and_(assets.c.state == LIVE, ~is_encoded(model))


def stored_vectors(connection: Connection, model: Model) -> Iterator[list[StoredVector]]:
    """Every vector of a model by its id, `VECTORS_AT_ONCE` at a time."""
    columns = (vectors.c.id, vectors.c.kind, vectors.c.change, vectors.c.mu, vectors.c.logvar)
    query = select(*columns).where(vectors.c.model_id == model.id).order_by(vectors.c.id)
    for page in connection.execute(query).partitions(VECTORS_AT_ONCE):
        yield [
            StoredVector(number, kind, change, mu or b"", logvar or b"", mu is None and logvar is None)
            for number, kind, change, mu, logvar in page
        ]


def sample(connection: Connection, model: Model, online: Collection[int], count: int) -> list[OwnVector]:
    """Own vectors of live files in the roots `online`, and of captions, chosen by chance."""
    logvar = func.coalesce(vectors.c.logvar, b"")
    columns = (vectors.c.id, vectors.c.asset_id, vectors.c.mu, logvar, captions.c.text, assets.c.root_id)
    query = (
        select(*columns, assets.c.rel_path, assets.c.modality, assets.c.content_hash)
        .join(assets, assets.c.id == vectors.c.asset_id)
        .join(captions, captions.c.id == vectors.c.caption_id, isouter=True)
        .where(vectors.c.model_id == model.id, vectors.c.role == OWN, vectors.c.mu.is_not(None))
        .where(assets.c.state == LIVE, or_(assets.c.root_id.in_(list(online)), captions.c.text.is_not(None)))
    )
    return [OwnVector(*row) for row in connection.execute(query.order_by(func.random()).limit(count))]


def mend_salvaged(connection: Connection, where: Path) -> None:
    """Make rows that came out of a damaged file fit together; the next index run looks at every caption again."""
    connection.execute(update(roots).values(pairing_due=True, captions_seen=None))
    mend_references(connection, where)


def mend_references(connection: Connection, where: Path) -> None:
    """Every row leads somewhere again.

    Files without a root get one that is offline: when their folder is indexed again, their vectors are found. Other
    rows that lead nowhere are deleted.
    """
    there = exists().where(roots.c.id == assets.c.root_id)
    for root_id in connection.scalars(select(assets.c.root_id).where(~there).distinct()).all():
        path = str(where / f"lost-folder-{root_id}")
        connection.execute(insert(roots).values(id=root_id, path=path, pairing_due=False))
        own_roots.remember(connection, Path(path))
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # a row may go before those that speak of it
    gone = 1
    while gone:  # what pointed to a row that went leads nowhere now
        gone = 0
        for table, column, lost in references():
            if table is library:
                gone += connection.execute(update(library).where(lost).values({column: None})).rowcount
            elif table is not assets:
                gone += connection.execute(delete(table).where(lost)).rowcount


def mend_counters(connection: Connection) -> None:
    """One row of `library`, with counters that no row is ahead of."""
    numbers, found = newest(connection), counters(connection)
    change, generation = (max(each) for each in zip(numbers, *found, strict=True))
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
    ids = set(doubles(connection, model))
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
    due.update(connection.scalars(select(assets.c.root_id).where(unencoded(model)).distinct()))
    set_pairing_due(connection, due)
    return due


def _highest(column: ColumnElement[int]) -> ColumnElement[int | None]:
    return func.max(column, type_=Integer)  # of no rows there is none


def _count(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    return int(connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one())


def _state_of(path: Path) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
