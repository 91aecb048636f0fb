"""Whole tables, out and in: what an archive, a backup and a salvaged catalog are made of.

In: a snapshot, or rows from an archive. Out: rows by their key, page by page; SQLite's own copy of itself. The table of
index files is left out: they are a cache. Next: `damaged.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    Table,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.exc import StatementError

from indexer.base.disk_errors import trouble
from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.base.types import Model
from indexer.catalog import door, visibility
from indexer.catalog.schema import Cell, PathBytes, frames, generations, library, metadata, models, vectors

if TYPE_CHECKING:
    from indexer.catalog.database import Catalog

ROWS_AT_ONCE: Final = 8192
BLOBS: Final = ("mu", "logvar")  # columns of `vectors` that `pages` leaves out
NUMBER: Final = "row"  # in their place: which of the blobs of its model a vector has, counted from 0
Kind = Literal["path", "bytes", "bool", "int", "float", "time", "text"]
Row = dict[str, Any]  # the values of one row by column, whatever the table

_KINDS: Final[tuple[tuple[type, Kind], ...]] = (
    (PathBytes, "path"),
    (LargeBinary, "bytes"),
    (Boolean, "bool"),
    (BigInteger, "int"),
    (Integer, "int"),
    (Float, "float"),
    (DateTime, "time"),
)


@dataclass(frozen=True)
class TableColumn:
    """A column: what it holds, and whether it may be empty."""

    name: str
    kind: Kind
    nullable: bool


@dataclass(frozen=True)
class WholeTable:
    """A table with the columns that `pages` hands out and `insert` takes."""

    name: str
    columns: tuple[TableColumn, ...]


def _described(table: Table) -> WholeTable:
    columns = [
        TableColumn(column.name, _kind(column), bool(column.nullable))
        for column in table.columns
        if table is not vectors or column.name not in BLOBS
    ]
    numbers = (TableColumn(NUMBER, "int", True),) if table is vectors else ()
    return WholeTable(table.name, (*columns, *numbers))


def _kind(column: Column[Any]) -> Kind:
    made = column.type.impl_instance if isinstance(column.type, Cell) else column.type
    return next((kind for of, kind in _KINDS if isinstance(made, of)), "text")


TABLES: Final = tuple(_described(table) for table in metadata.sorted_tables if table is not generations)


def pages(connection: Connection, table: WholeTable) -> Iterator[list[Row]]:
    """The rows of a table by their key."""
    whole = metadata.tables[table.name]
    columns: list[Any] = [whole.c[column.name] for column in table.columns if column.name in whole.c]
    if whole is vectors:
        columns.append(vectors.c.mu.is_not(None).label(NUMBER))
    seen: dict[int, int] = {}
    for part in connection.execute(select(*columns).order_by(*whole.primary_key)).mappings().partitions(ROWS_AT_ONCE):
        rows = [dict(row) for row in part]
        if whole is vectors:
            for row in rows:
                number = seen.get(row["model_id"], 0)
                seen[row["model_id"]] = number + bool(row[NUMBER])
                row[NUMBER] = number if row[NUMBER] else None
        yield rows


def blobs(connection: Connection, model: Model, name: str) -> Iterator[bytes]:
    """`mu` or `logvar` of every vector of a model that has them, float16 `[d]` each, in the order of `NUMBER`."""
    query = select(vectors.c[name]).where(vectors.c.model_id == model.id, vectors.c.mu.is_not(None))
    yield from connection.execution_options(yield_per=ROWS_AT_ONCE).scalars(query.order_by(vectors.c.id))


def count_blobs(connection: Connection, model: Model) -> int:
    """How many of its vectors have them."""
    query = select(func.count()).where(vectors.c.model_id == model.id, vectors.c.mu.is_not(None))
    return int(connection.execute(query).scalar_one())


def all_models(connection: Connection) -> list[Model]:
    """Every model that vectors came from, by id."""
    query = select(models.c.id, models.c.fingerprint, models.c.name, models.c.dim)
    return [Model(*row) for row in connection.execute(query.order_by(models.c.id))]


def count(connection: Connection, name: str) -> int:
    """How many rows a table has."""
    return int(connection.execute(select(func.count()).select_from(metadata.tables[name])).scalar_one())


@contextmanager
def bulk(connection: Connection) -> Iterator[None]:
    """Many rows at once, without a trigger for each: what the triggers would have done is done at the end."""
    visibility.drop(connection)
    yield
    visibility.create(connection)
    visibility.refresh(connection)


def make_room(connection: Connection) -> None:
    """Take out the one row that a new catalog has."""
    connection.execute(delete(library))


def insert(connection: Connection, table: WholeTable, rows: Sequence[Row]) -> None:
    """Put rows in; those of `vectors` with their blobs. Raises: ValueError where the table does not take them."""
    if not rows:
        return
    try:
        connection.execute(metadata.tables[table.name].insert(), rows)
    except StatementError as error:  # a constraint, or a value of another kind
        raise ValueError(str(error.orig)) from error


def library_ids(connection: Connection) -> list[int]:
    """The keys of the table that has one row, 1."""
    return list(connection.scalars(select(library.c.id)))


def has_odd_frames(connection: Connection) -> bool:
    """Whether the vector of a keyframe is not as long as its model's."""
    lengths = select(frames.c.id).join(models, models.c.id == frames.c.model_id)
    odd = lengths.where(func.length(frames.c.mu) != 2 * models.c.dim).limit(1)
    return connection.execute(odd).first() is not None


def copy_to(catalog: Catalog, path: Path) -> None:
    """Copy the catalog to the new file `path`, as of one moment.

    One step, in one snapshot: done page by page it would begin again with every batch a writer commits.
    Raises: LibraryCorrupt when it is damaged; LibraryError when it is no SQLite file, or cannot be copied.
    """
    if catalog.engine.dialect.name != "sqlite":
        raise LibraryError("the catalog is no SQLite file; back it up with the tools of its database")
    source = catalog.engine.raw_connection()
    try:
        with closing(door.connect(path, "rwc", any_schema=True)) as target:
            driver = source.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.backup(target)
            found = target.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        found = trouble(error, path)
        how = f"({error})" if found is None else f"({found.what}); {found.remedy}"
        raise LibraryError(f"the catalog cannot be copied {how}") from error
    except sqlite3.DatabaseError as error:
        found = str(error)
    finally:
        source.close()
    if found != "ok":
        raise LibraryCorrupt(f"the catalog is damaged ({found}), and was not copied; keep your older backups")


def rename_models(connection: Connection, names: dict[int, str]) -> None:
    """Give models, by id, another name: one inside the library is called by its path."""
    for model_id, name in names.items():
        connection.execute(update(models).where(models.c.id == model_id).values(name=name))
