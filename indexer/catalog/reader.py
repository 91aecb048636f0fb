"""The catalog as a search reads it: plain SQL on sqlite3, the one exception to "SQL through SQLAlchemy".

To import SQLAlchemy and the tables takes 0.3 s of processor time, as much as all the rest of a cold search. So what a
search asks is plain SQL, written once for both kinds of connection: here, in `roots.py`, in `hits.py`, and about index
files. Everything else uses SQLAlchemy.

In: `catalog.sqlite`, or a connection of `database.py`. Out: rows. A catalog that is not as expected (another schema,
damaged, not a file) is left to `database.py`, which knows what to say of it. Next: `roots.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from indexer.base.disk_errors import trouble
from indexer.base.errors import LibraryError, ModelMismatch
from indexer.base.types import Model
from indexer.catalog import door, readonly
from indexer.catalog.cells import decoded
from indexer.catalog.columns import check
from indexer.catalog.known_schema import SCHEMA_REVISION
from indexer.catalog.pool import Pool

if TYPE_CHECKING:  # importing SQLAlchemy takes longer than a search
    from sqlalchemy import Connection

    Snapshot = sqlite3.Connection | Connection  # one transaction on the catalog, seen from outside: pass it on

IDS_AT_ONCE: Final = 5000

Rows = list[tuple[Any, ...]]


def read(connection: Snapshot, sql: str, **values: object) -> Rows:
    """The rows of a query with `:named` values, over a connection of sqlite3 or of SQLAlchemy."""
    return [row for page in pages(connection, sql, 10_000, **values) for row in page]


def pages(connection: Snapshot, sql: str, size: int, **values: object) -> Iterator[Rows]:
    """The same, `size` rows at a time."""
    if isinstance(connection, sqlite3.Connection):
        cursor = connection.execute(sql, values)
        while page := cursor.fetchmany(size):
            yield page
        return
    from sqlalchemy import text

    for rows in connection.execute(text(sql), values).partitions(size):
        yield [tuple(row) for row in rows]


def read_by_ids(connection: Snapshot, sql: str, ids: Sequence[int], **values: object) -> Iterator[tuple[Any, ...]]:
    """The rows of a query with `IN ({ids})`, however many ids there are: asked for in parts."""
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield from read(connection, sql.format(ids=listed(ids[start : start + IDS_AT_ONCE])), **values)


def listed(numbers: Sequence[int]) -> str:
    """Whole numbers for an IN (...), whose length no placeholder takes."""
    return ", ".join(str(int(number)) for number in numbers)


def live_model(connection: Snapshot) -> Model | None:
    """The model whose vectors are searched."""
    query = "SELECT m.id, m.fingerprint, m.name, m.dim FROM models m JOIN library l ON l.model_id = m.id"
    for number, fingerprint, name, dim in read(connection, query):
        check("models", number, fingerprint=fingerprint, name=name, dim=dim)
        return Model(number, fingerprint, name, dim)
    return None


def last_change(connection: Snapshot) -> int:
    """The number of the newest change."""
    for number, change in read(connection, "SELECT id, change FROM library ORDER BY change DESC LIMIT 1"):
        check("library", number, change=change)
        return int(change)
    return 0


def mismatch(where: Path, model: Model, fingerprint: str, name: str | None = None) -> ModelMismatch:
    """The error for vectors of two models meeting: which two, and what to type."""
    asked = f"'{name}' ({fingerprint[:12]})" if name else f"the model with fingerprint {fingerprint[:12]}"
    return ModelMismatch(
        f"library {where} was written with model '{model.name}' ({model.fingerprint[:12]}), not with {asked}; use "
        "another library ('mmsearch index --library OTHER ...'), "
        "or encode this one again ('mmsearch rebuild --model NAME')"
    )


class CatalogReader:
    """Read transactions on a SQLite catalog, from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_only = readonly.is_read_only(path)
        where = f"the catalog {path}"
        opened = partial(readonly.connect, path) if self._read_only else partial(door.connect, path, "rw")  # never made
        self._pool = Pool(where, opened, 0) if self._read_only else Pool(where, opened)

    @classmethod
    def open(cls, path: Path) -> CatalogReader | None:
        """A reader of the catalog at `path`, or None where `Catalog.open` must have a look at it."""
        reader = cls(path)
        with suppress(LibraryError, ValueError), reader.begin() as connection:  # ValueError: no text of UTF-8
            if read(connection, "SELECT version_num FROM alembic_version") == [(SCHEMA_REVISION,)]:
                return reader
        reader.close()
        return None

    @contextmanager
    def begin(self) -> Iterator[sqlite3.Connection]:
        """One snapshot. Raises: LibraryCorrupt, LibraryError: what the database complains of, in one line."""
        try:
            with self._undisturbed() if self._read_only else nullcontext(), self._pool.lent() as connection:
                assert isinstance(connection, door.CatalogConnection)
                connection.renew()
                connection.text_factory = decoded  # one text that is none must not end the whole answer
                connection.execute("BEGIN")
                try:
                    yield connection
                finally:
                    connection.rollback()  # nothing was written
        except sqlite3.DatabaseError as error:
            if (reason := door.stopped(error)) is not None:
                raise reason from error
            damaged = not isinstance(error, sqlite3.OperationalError) or is_damage(error)
            if not damaged:
                found = trouble(error, self._path)
                how = f"({error})" if found is None else f"({found.what}); {found.remedy}"
                raise LibraryError(f"the catalog {self._path} cannot be used now {how}") from error
            raise door.damaged(self._path, error) from error

    def close(self) -> None:
        """Release every connection, those in use when they are done."""
        self._pool.close()

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Around what is read where no lock can be held: somebody who may write could do so meanwhile.

        Raises: LibraryError when somebody did.
        """
        before = readonly.stamp(self._path)
        try:
            yield
        finally:
            if readonly.stamp(self._path) != before:  # also where this is why it looked damaged
                raise LibraryError(f"the catalog {self._path} was written while it was read; ask again")


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite finds the file itself wrong (an unknown format, a table missing) and not its surroundings."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # none: text that is not UTF-8
    return isinstance(error, sqlite3.Error) and code == sqlite3.SQLITE_ERROR
