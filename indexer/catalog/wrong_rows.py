"""Rows that break a rule of `columns.py`: found without reading what may be endless, and set aside whole.

In: a connection. Out: which rows, and what the first of them holds; a file of JSON lines beside the catalog with every
cell of the rows that were taken out, and of those that say something about them. Nothing is deleted before that file is
on the disk. The next index run makes new rows of the files. Next: `checks.py`, which makes the other rows fit together.
"""

from __future__ import annotations

import base64
import json
import math
import os
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from sqlalchemy import Connection, exc

from indexer.base.durable import sync
from indexer.base.errors import RowCorrupt
from indexer.base.failpoints import reach
from indexer.base.plain_files import new_file
from indexer.catalog import checks, tables
from indexer.catalog.cells import DAMAGED, REMEDY, decoded, row_corrupt
from indexer.catalog.columns import MOST_ROOTS, RULES
from indexer.catalog.schema import assets, library, metadata
from indexer.catalog.scopes import chunked

KEPT_BYTES: Final = 1 << 20  # of one cell: what is longer was no value of ours
SEQUENCES: Final = "sqlite_sequence"
WrongRows = dict[str, set[int]]  # the numbers of rows (SQLite's rowid) by table


def find(connection: Connection) -> WrongRows:
    """Every row of every table that breaks a rule; no table without one."""
    found = {table: set(_wrong(connection, table)) for table in RULES}
    found["roots"] |= set(_roots_to_spare(connection))
    return {table: rows for table, rows in found.items() if rows}


def first(connection: Connection, found: WrongRows | None = None) -> RowCorrupt | None:
    """What is wrong with the first of them, as an error to raise."""
    for table, rows in (find(connection) if found is None else found).items():
        return _said(connection, table, min(rows))
    return None


def summary(connection: Connection, found: WrongRows) -> str:
    """How many rows of which tables, and what the first of them holds."""
    counts = ", ".join(f"{len(rows)} of {table}" for table, rows in found.items())
    return f"{counts}; {str(first(connection, found)).removeprefix(DAMAGED).removesuffix(REMEDY)}"


def set_aside(connection: Connection, where: Path) -> tuple[Path, int]:
    """Take these rows out, and those that speak of them; the file that holds them now, and how many they are.

    `where` is the folder of the library. The caller holds the writer's lock.
    """
    doomed = _with_dependents(connection, find(connection))
    path = where / f"set-aside-{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(3).hex()}.jsonl"
    with new_file(path) as file:
        for table, rows in doomed.items():
            _write(file, connection, table, rows)
    sync(path)
    sync(where)
    reach("aside.written")
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # a row may go before those that speak of it
    with tables.bulk(connection):
        for table, rows in doomed.items():
            for chunk in chunked(rows):
                connection.exec_driver_sql(f"DELETE FROM {table} WHERE rowid IN ({_listed(chunk)})")
        if SEQUENCES in doomed:
            _count_again(connection)
        checks.mend_salvaged(connection, where)
        checks.mend_counters(connection)
    reach("aside.deleted")
    return path, sum(map(len, doomed.values()))


def _wrong(connection: Connection, table: str) -> Iterator[int]:
    rules = RULES[table]
    sound = " AND ".join(rule.condition(column) for column, rule in rules.items())
    yield from _asked(connection, f"SELECT rowid FROM {table} WHERE NOT ({sound})", table)
    read = {column: rule for column, rule in rules.items() if rule.reads}
    if not read:
        return
    cells = ", ".join(f"CAST({column} AS BLOB)" for column in read)
    query = f"SELECT rowid, {cells} FROM {table} WHERE {sound}"
    try:
        for number, *values in connection.execution_options(yield_per=1000).exec_driver_sql(query):
            for rule, value in zip(read.values(), values, strict=True):
                if value is not None and not rule.holds(decoded(value)):
                    yield number
                    break
    except exc.DataError:  # longer than this connection reads: found above, and sound rows are shorter
        return


def _asked(connection: Connection, query: str, table: str) -> Iterator[int]:
    """The rows that a question finds; one that cannot even be asked of a row finds that row."""
    low, high = connection.exec_driver_sql(f"SELECT min(rowid), max(rowid) FROM {table}").one()
    ranges = [(low, high)] if low is not None else []
    while ranges:
        low, high = ranges.pop()
        try:
            yield from connection.exec_driver_sql(f"{query} AND rowid BETWEEN ? AND ?", (low, high)).scalars().all()
        except exc.DataError:  # a cell is longer than SQLite may read
            if low == high:
                yield low
            else:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]


def _roots_to_spare(connection: Connection) -> list[int]:
    """Of more roots than anybody names, those without files."""
    if connection.exec_driver_sql("SELECT count(*) FROM roots").scalar_one() <= MOST_ROOTS:
        return []
    query = "SELECT rowid FROM roots WHERE id NOT IN (SELECT root_id FROM assets)"
    return list(connection.exec_driver_sql(query).scalars())


def _said(connection: Connection, table: str, row: int) -> RowCorrupt:
    for column, rule in RULES[table].items():
        try:
            query = f"SELECT {rule.condition(column)} FROM {table} WHERE rowid = ?"
            is_sound = bool(connection.exec_driver_sql(query, (row,)).scalar_one())
        except exc.DataError:
            is_sound = False
        value, _ = _cell(connection, table, column, row)
        value = decoded(value) if isinstance(value, _Words) else value
        if not is_sound or (rule.reads and value is not None and not rule.holds(value)):
            return row_corrupt(table, row, column, value, rule)
    return RowCorrupt(f"{DAMAGED}{table} has more than {MOST_ROOTS:,} rows, some of them without files{REMEDY}")


class _Words(bytes):
    """Bytes that SQLite has for text."""


def _cell(connection: Connection, table: str, column: str, row: int) -> tuple[Any, int]:
    """A value as it is stored, `KEPT_BYTES` of it at most, and its whole length in bytes."""
    kind = connection.exec_driver_sql(f"SELECT typeof({column}) FROM {table} WHERE rowid = ?", (row,)).scalar_one()
    if kind not in ("text", "blob"):
        value = connection.exec_driver_sql(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).scalar_one()
        return value, 0
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    with driver.blobopen(table, column, row, readonly=True) as blob:
        value = blob.read(KEPT_BYTES)
        return (_Words(value) if kind == "text" else value), len(blob)


def _with_dependents(connection: Connection, found: WrongRows) -> WrongRows:
    """Also the rows that name one of them, those before it; but the files of a root that goes stay."""
    doomed = {table.name: set(found.get(table.name, ())) for table in reversed(metadata.sorted_tables)}
    if doomed["frames"]:  # the file has to be encoded again, for all its keyframes
        query = (
            "SELECT v.id FROM vectors v JOIN frames f ON f.asset_id = v.asset_id AND f.model_id = v.model_id "
            "WHERE v.role = 'own' AND v.caption_id IS NULL AND f.rowid IN ({})"
        )
        for chunk in chunked(doomed["frames"]):
            doomed["vectors"].update(connection.exec_driver_sql(query.format(_listed(chunk))).scalars())
    grown = True
    while grown:
        grown = False
        for table in metadata.sorted_tables:
            for key in table.foreign_keys if table not in (assets, library) else ():
                for chunk in chunked(doomed[key.column.table.name]):
                    query = f"SELECT rowid FROM {table.name} WHERE {key.parent.name} IN ({_listed(chunk)})"
                    fresh = set(connection.exec_driver_sql(query).scalars()) - doomed[table.name]
                    doomed[table.name] |= fresh
                    grown = grown or bool(fresh)
    doomed[SEQUENCES] = found.get(SEQUENCES, set())
    return {table: rows for table, rows in doomed.items() if rows}


def _count_again(connection: Connection) -> None:
    """SQLite's own counters of ids: the next one follows the highest that is there."""
    counted = [table.name for table in metadata.sorted_tables if table.dialect_options["sqlite"]["autoincrement"]]
    for name in counted:
        connection.exec_driver_sql(f"DELETE FROM {SEQUENCES} WHERE name = ?", (name,))
        connection.exec_driver_sql(f"INSERT INTO {SEQUENCES} SELECT ?, coalesce(max(rowid), 0) FROM {name}", (name,))


def _write(file: BinaryIO, connection: Connection, table: str, rows: Collection[int]) -> None:
    """One line for each row; those that SQLite cannot give back at once, cell by cell."""
    names = [str(row[1]) for row in connection.exec_driver_sql(f"PRAGMA table_info({table})")]
    kinds = ", ".join(
        f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END" for name in names
    )
    for chunk in chunked(sorted(rows)):
        left = dict.fromkeys(chunk)
        query = f"SELECT rowid, {kinds} FROM {table} WHERE rowid IN ({_listed(chunk)})"
        with suppress(exc.DataError):
            for row, *found in connection.execution_options(yield_per=1).exec_driver_sql(query):
                pairs = zip(found[::2], found[1::2], strict=True)
                _write_line(file, table, row, dict(zip(names, (_cut(*pair) for pair in pairs), strict=True)))
                del left[row]
        for row in left:
            _write_line(file, table, row, {name: _cell(connection, table, name, row) for name in names})


def _write_line(file: BinaryIO, table: str, row: int, cells: dict[str, tuple[Any, int]]) -> None:
    line = {"table": table, "row": row, "cells": {name: _plain(*cell) for name, cell in cells.items()}}
    file.write(json.dumps(line, allow_nan=False).encode() + b"\n")


def _cut(kind: str, value: Any) -> tuple[Any, int]:
    """A value that was read whole, as `_cell` gives it."""
    if not isinstance(value, bytes):
        return value, 0
    kept = value[:KEPT_BYTES]
    return (_Words(kept) if kind == "text" else kept), len(value)


def _plain(value: Any, size_bytes: int) -> Any:
    """A value for JSON: bytes in base64, and so is text that is none or is too long to be kept whole."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, bytes):
        return value
    if isinstance(value, _Words) and len(value) == size_bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    kind = "text" if isinstance(value, _Words) else "blob"
    return {"kind": kind, "bytes": size_bytes, "base64": base64.b64encode(value).decode()}


def _listed(numbers: Collection[int]) -> str:
    return ", ".join(map(str, numbers))
