"""Lies in single cells of a catalog: every column of every table, told values that no program of ours writes there.

In: a library of tests. Out: `Lie`s, and a catalog that has one of them. SQLite lets any cell hold anything, and whoever
gives a library away can drop what a column declares (its type, NOT NULL) and put it back: so does `tell`.
Next: `e2e/test_lies.py`, which tells each of them to every command.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HUGE: Final = 2**63 - 1
LONG_CHARS: Final = 300_000
TYPES: Final = r"(VARCHAR\(\d+\)|TEXT|BLOB|BIGINT|SMALLINT|INTEGER|FLOAT|BOOLEAN|DATETIME)"


@dataclass(frozen=True)
class Text:
    """Bytes that SQLite takes for text; they need not be UTF-8."""

    data: bytes


Value = int | float | str | bytes | Text | None

VALUES: Final[dict[str, Value]] = {
    "nothing": None,
    "minus one": -1,
    "zero": 0,
    "three billions": 3_000_000_000,
    "the highest number": HUGE,
    "the lowest number": -HUGE - 1,
    "a fraction": 1.5,
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "no text": "",
    "a word": "word",
    "a long text": "x" * LONG_CHARS,
    "a text that is not UTF-8": Text(b"\xff\xfe caf\xe9"),
    "half a surrogate": Text(b"\xed\xa0\x80"),
    "escape sequences": "\x1b]0;title\x07\x1b[31m\x9b31m",
    "a text with NUL": "a\0b",
    "a day that is none": "2019-13-45 99:99:99.000000",
    "a day before Christ": "-0044-03-15 12:00:00.000000",
    "a path above": "../../outside.png",
    "a list in JSON": "[[[1, null, {}]]]",
    "no bytes": b"",
    "three bytes": b"\xff\x00\xfe",
    "bytes of a path above": b"../../outside.png",
    "bytes of an absolute path": b"/dev/zero",
    "bytes with NUL": b"a\0b.png",
    "bytes of a long path": b"a/" * 20_000 + b"b.png",
    "a folder with a stranger inside": b"a//./b.png",
    "NaN at half precision": b"\x00\x7e" * 16,
    "infinity at half precision": b"\x00\x7c" * 16,
    "the smallest numbers at half precision": b"\xff\xfb" * 16,
    "many bytes": b"\x3c" * LONG_CHARS,
}


@dataclass(frozen=True)
class Lie:
    """One value in one column, in the row that comes first."""

    table: str
    column: str
    name: str

    @property
    def value(self) -> Value:
        """What is told."""
        return VALUES[self.name]

    def __str__(self) -> str:
        return f"{self.table}.{self.column}: {self.name}"


def lies(catalog_file: Path) -> Iterator[Lie]:
    """Every value for every column of every table that has a row."""
    with closing(sqlite3.connect(catalog_file)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for (table,) in names:
            if connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None:
                continue
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
                yield from (Lie(table, column, name) for name in VALUES)


def tell(catalog_file: Path, lie: Lie) -> bool:
    """Put a lie into the first row of its table; False where SQLite does not take it, as for the number of a row."""
    with closing(sqlite3.connect(catalog_file, isolation_level=None)) as connection:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (lie.table,)).fetchone()
        if lie.table != "sqlite_sequence":
            _declare(connection, lie.table, _undeclared(found[0], lie.column))
    with closing(sqlite3.connect(catalog_file, isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        value: Value = lie.value
        cell, value = ("CAST(? AS TEXT)", value.data) if isinstance(value, Text) else ("?", value)
        where = f"WHERE rowid = (SELECT min(rowid) FROM {lie.table})"
        try:
            connection.execute(f"UPDATE {lie.table} SET {lie.column} = {cell} {where}", (value,))
            told = True
        except sqlite3.Error:
            told = False
        for _, sql in triggers:
            connection.execute(sql)
        if lie.table != "sqlite_sequence":
            _declare(connection, lie.table, found[0])
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return told


def _undeclared(sql: str, column: str) -> str:
    """The table without the type of a column and without NOT NULL; the key of the rows stays what it is."""
    if re.search(rf"\b{column} INTEGER NOT NULL( PRIMARY KEY|.*PRIMARY KEY \({column}\))", sql, re.DOTALL):
        return sql
    return re.sub(rf"\b{column} {TYPES}( DEFAULT '{{}}')?( NOT NULL)?", rf"{column} BLOB\2", sql, count=1)


def _declare(connection: sqlite3.Connection, table: str, sql: str) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ? AND type = 'table'", (sql, table))
    connection.execute("PRAGMA writable_schema = RESET")
