"""What every command prints with: tables, paths and JSON as bytes on stdout, lines for a person on stderr.

In: rows, paths, values. Out: bytes. A file name is bytes: paths come out as exactly those, tables escape what would
break a line. Only this package prints. Next: `render.py`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path


class Format(StrEnum):
    """How hits and skipped files are shown."""

    TABLE = "table"
    PATHS = "paths"
    PRINT0 = "print0"
    JSON = "json"


def note(message: str) -> None:
    """One line for a person, on stderr."""
    line = " ".join(message.split())
    sys.stderr.write(f"mmsearch: {line}\n".encode("utf-8", "backslashreplace").decode("utf-8"))
    sys.stderr.flush()


class NoteHandler(logging.Handler):
    """Log records as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        note(record.getMessage())


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def put_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell, numbers to the right, control characters escaped: one row is one line."""
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    body = cells[1:] or cells  # the first row may be titles
    right = [all(_is_number(row[column]) for row in body) for column in range(len(widths))]
    for row in cells:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        put("  ".join(parts).rstrip() + "\n")


def put_matrix(rows: Mapping[str, Mapping[str, object]]) -> None:
    """Named rows of the same named values, under a line of the names; `r10` is shown as `R@10`."""
    columns = list(next(iter(rows.values())))
    titles = [re.sub(r"^r(\d+)$", r"R@\1", column).replace("_", " ") for column in columns]
    body = [(name.replace("_", " "), *(as_cell(row.get(column)) for column in columns)) for name, row in rows.items()]
    put_table([("", *titles), *body])


def put_paths(paths: Iterable[Path], style: Format) -> None:
    """Paths as their bytes, each with a newline or a NUL behind it."""
    end = b"\0" if style is Format.PRINT0 else b"\n"
    for path in paths:
        _put_bytes(os.fsencode(path) + end)


def put_json(value: object, indent: int | None = 2) -> None:
    """A value as JSON, indented; on one line where `indent` is None."""
    # ASCII: a name that is not UTF-8 becomes \udcXX, which JSON readers take and Python turns back into the same bytes
    put(json.dumps(value, indent=indent, default=_plain) + "\n")


def put(text: str) -> None:
    """Text, as it is, where the terminal takes it."""
    try:
        _put_bytes(os.fsencode(text))
    except UnicodeEncodeError:  # a terminal that is not UTF-8
        _put_bytes(text.encode(sys.getfilesystemencoding(), "backslashreplace"))


def _put_bytes(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def as_cell(value: object) -> str:
    """A value as a table shows it."""
    return str(round(value, 4)) if isinstance(value, float) else "-" if value is None else str(value)


def visible(text: str) -> str:
    """Text without what a terminal would act on: control characters escaped."""
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in text)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).replace("-", "", 1).isdigit()


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
