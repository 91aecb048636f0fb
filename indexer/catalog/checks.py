"""What may be wrong with the rows: questions that a sound catalog answers with nothing.

In: a snapshot. Out: counts, ids and rows, typed; nothing is written. Next: `mending.py`, which makes it right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, and_, exists, func, or_, select

from indexer.base.types import Modality, Model
from indexer.catalog.schema import LIVE, OWN, assets, captions, generations, library, metadata, models, vectors
from indexer.catalog.scopes import is_encoded

VECTORS_AT_ONCE: Final = 8192


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
    """What the database finds wrong with its own file."""
    if connection.dialect.name != "sqlite":
        return []  # a server checks its own files
    said = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
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
    change = connection.execute(select(func.max(vectors.c.change))).scalar_one()
    query = select(func.max(generations.c.change), func.max(generations.c.generation))
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


def _count(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    return int(connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one())
