"""A damaged SQLite file: every row that can still be read goes into a new one, and the damaged one is kept aside.

One with a schema that is not ours is treated the same: rows come out of plain tables only, so that no view, generated
column or virtual table of somebody else is run, and triggers stay behind.

In: the damaged file. Out: a catalog that opens, and how many rows were saved of each table. What is lost is found again
by `mmsearch index`: files are new to the catalog, folders have to be named again. The index file is a cache, and is not
carried over. Next: `checks.py`, which makes the rows fit together again.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from indexer.base.durable import aside_name
from indexer.base.errors import LibraryError
from indexer.base.failpoints import reach
from indexer.catalog import checks, door, tables
from indexer.catalog.database import Catalog
from indexer.catalog.schema import generations, library, metadata

log = logging.getLogger(__name__)
IDS_AT_ONCE: Final = 256  # rows asked for together; where a page is damaged, fewer and fewer until the bad one is alone
LEAST_ROW_BYTES: Final = 16  # no row is smaller: how many ids to look at where the damaged file does not say
PROBES: Final = 64  # ids asked for first, evenly spread: where none answers, none will
FAILURES: Final = 50_000  # queries that fail one after another before the rest of a table is given up: about a second
UNREADABLE: Final = (sqlite3.DatabaseError, UnicodeDecodeError)  # SQLite's complaint may quote damaged text


def salvage(catalog_file: Path) -> tuple[dict[str, int], Path]:
    """Replace a damaged catalog by what can be read of it: the rows saved by table, and where the damaged file is now.

    The caller holds the writer's lock.
    """
    fresh = catalog_file.with_name(catalog_file.name + ".new")
    for leftover in _family(fresh):
        try:
            leftover.unlink(missing_ok=True)
        except OSError as error:
            raise LibraryError(f"{leftover} is in the way ({error.strerror}); move it out of the library") from error
    catalog = Catalog.open(fresh, migrate_schema=True)
    try:
        with catalog.begin() as connection:
            with tables.bulk(connection):
                saved = recover(catalog_file, connection)
            checks.mend_salvaged(connection, catalog_file.parent)
    finally:
        catalog.close()
    reach("salvage.copied")
    aside = _swap(catalog_file, fresh)
    log.warning("%s is damaged; kept as %s", catalog_file, aside.name)
    return saved, aside


def _swap(catalog_file: Path, fresh: Path) -> Path:
    """The damaged file gets a second name before the new one takes its first: there is a catalog at every moment."""
    aside = aside_name(catalog_file)
    for path, kept in zip(_family(catalog_file), _family(aside), strict=True):
        if path.exists() and path.stat().st_size and not path.name.endswith("-shm"):
            try:
                os.link(path, kept)
            except OSError:  # a file system without links
                shutil.copy2(path, kept)
    for path in _family(catalog_file)[1:]:
        path.unlink(missing_ok=True)  # a log of the old file must never be read into the new one
    reach("salvage.aside")
    os.replace(fresh, catalog_file)
    return aside


def _family(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))]


def recover(damaged: Path, into: Connection) -> dict[str, int]:
    """Put every row of `damaged` that can be read into a new catalog; how many, by table. References may lead nowhere.

    Raises: LibraryError when the new catalog does not take them.
    """
    into.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    driver: Any = into.connection.driver_connection
    saved: dict[str, int] = {}
    with closing(door.connect(damaged, "ro", any_schema=True)) as source:
        source.text_factory = lambda data: data.decode("utf-8", "replace")  # a flipped bit need not leave UTF-8
        for table in metadata.sorted_tables:
            if table is generations:  # index files are a cache
                continue
            names = [column.name for column in table.columns]
            marks = ", ".join("?" * len(names))
            verb = "INSERT OR REPLACE" if table is library else "INSERT OR IGNORE"  # the new file has its own one row
            put = f"{verb} INTO {table.name} ({', '.join(names)}) VALUES ({marks})"
            saved[table.name] = 0
            if not _is_plain(source, table.name, names):
                log.warning("%s: '%s' cannot be read as a table of rows; nothing of it is saved", damaged, table.name)
                continue
            for rows in _readable(source, table.name, names, damaged.stat().st_size // LEAST_ROW_BYTES):
                try:
                    saved[table.name] += driver.executemany(put, rows).rowcount
                except sqlite3.Error as error:
                    raise LibraryError(f"what can be read of {damaged} cannot be written ({error})") from error
    return saved


def _is_plain(source: sqlite3.Connection, table: str, names: list[str]) -> bool:
    """Whether it is a table that holds its rows itself; to ask runs nothing of it."""
    try:
        made_by = source.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchall()
        if [str(sql).upper().split()[:2] for (sql,) in made_by] != [["CREATE", "TABLE"]]:
            return False
        hidden = {name: hidden for _, name, *_, hidden in source.execute(f"PRAGMA table_xinfo({table})")}
        return all(hidden.get(name) == 0 for name in names if name in hidden)
    except UNREADABLE as error:
        _go_on_after(error)
        return False


def _readable(source: sqlite3.Connection, table: str, names: list[str], most: int) -> Iterator[list[Any]]:
    """The rows of a table in ranges of ids; a range that cannot be read is halved until what is bad stands alone."""
    query = f"SELECT {', '.join(names)} FROM {table} WHERE rowid BETWEEN ? AND ?"
    last, failed = _last(source, table, most), 0
    if not any(_answers(source, query, last * step // PROBES) for step in range(PROBES + 1)):
        return  # the root of the table, or the list of tables
    for first in range(0, last + 1, IDS_AT_ONCE):
        ranges = [(first, first + IDS_AT_ONCE - 1)]
        while ranges and failed < FAILURES:
            low, high = ranges.pop()
            try:
                rows = _rows(source, query, low, high)
            except UNREADABLE as error:
                _go_on_after(error)
                failed += 1
                if low < high:
                    middle = (low + high) // 2
                    ranges += [(middle + 1, high), (low, middle)]
            else:
                failed = 0
                yield rows


def _rows(source: sqlite3.Connection, query: str, low: int, high: int) -> list[Any]:
    """The rows of a range of ids; asked again once where the disk failed.

    Raises: UNREADABLE, also where pages lead in a circle and give more than can be.
    """
    for attempt in (1, 2):
        try:
            rows = source.execute(query, (low, high)).fetchmany(high - low + 2)
            break
        except sqlite3.OperationalError as error:
            if attempt == 2 or not error.sqlite_errorname.startswith("SQLITE_IOERR"):
                raise
    if len(rows) > high - low + 1:
        raise sqlite3.DatabaseError(f"more than {high - low + 1} rows")
    return rows


def _answers(source: sqlite3.Connection, query: str, rowid: int) -> bool:
    try:
        _rows(source, query, rowid, rowid)
    except UNREADABLE as error:
        _go_on_after(error)
        return False
    return True


def _go_on_after(error: Exception) -> None:
    """Raises: what stopped the statement from outside, as Ctrl-C does."""
    if (reason := door.stopped(error)) is not None and not isinstance(reason, LibraryError):
        raise reason from error


def _last(source: sqlite3.Connection, table: str, most: int) -> int:
    for query in (f"SELECT max(rowid) FROM {table}", f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'"):
        try:
            row = source.execute(query).fetchone()
        except UNREADABLE as error:
            _go_on_after(error)
            continue
        if row is not None and isinstance(row[0], int):
            return min(row[0], 16 * most)  # where that number is itself damaged
        if row is not None:
            return 0
    return most
