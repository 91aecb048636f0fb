"""The one door to the terminal: everything that is printed is written here, and nowhere else.

Names, texts and messages may come from another person's files. So every line, on stdout and on stderr, goes through
`visible`, which leaves nothing in it that a terminal would act on: escape sequences, control characters of both sets
(C0 and C1, ISO 6429), turned directions, invisible characters, line ends of Unicode.

In: lines, rows, paths, values. Out: bytes. Paths for other programs (`--paths`, `-0`) are exactly their bytes, except
on a terminal. stdout that takes no more is `CannotShow`; where stderr takes no more, nobody listens and the work goes
on. Next: `render.py`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TextIO

_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # the others stand for bytes that are not UTF-8
REMEMBERED_LINES = 256


class CannotShow(OSError):
    """stdout is closed, its disk is full, or whoever read it has seen enough (`errno` is EPIPE)."""


class Format(StrEnum):
    """How hits and skipped files are shown."""

    TABLE = "table"
    PATHS = "paths"
    PRINT0 = "print0"
    JSON = "json"


def visible(text: str) -> str:
    """Text without what a terminal would act on: such characters, and bytes 0x80 to 0x9f, are escaped."""
    if text.isprintable():
        return text
    text = _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")  # bytes that make a character
    return "".join(c if c.isprintable() or "\udca0" <= c <= "\udcff" else _escaped(c) for c in text)


def note(message: str) -> None:
    """One line for a person, on stderr."""
    _to_stderr(f"mmsearch: {' '.join(message.split())}")


def note_lines(text: str) -> None:
    """Several lines for a person, on stderr, with their spaces: a table, a traceback."""
    for line in text.splitlines():
        _to_stderr(line)


class NoteHandler(logging.Handler):
    """Log records as lines on stderr, each line once: what is wrong is met by each step of a command."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[tuple[str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        said = record.name, record.getMessage()
        if said in self._said:
            return
        if len(self._said) >= REMEMBERED_LINES:  # of a server that runs for weeks
            self._said.clear()
        self._said.add(said)
        note(said[1])


@contextlib.contextmanager
def only_notes(debug: bool = False) -> Iterator[None]:
    """Whatever speaks up by itself speaks through `note`: log records, and errors of threads.

    Warnings and errors that nobody catches are meant for programmers, and shown only with `debug`.
    """
    handler, root = NoteHandler(), logging.getLogger()
    ours = [logging.getLogger(name) for name in ("mmsearch", "indexer")]
    hooks = threading.excepthook, sys.unraisablehook
    root.addHandler(handler)
    for logger in ours:
        logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            warnings.showwarning = lambda message, category, *_: note(f"{category.__name__}: {message}")
            threading.excepthook = lambda failed: _note_uncaught(failed.exc_value, debug)
            sys.unraisablehook = lambda failed: _note_uncaught(failed.exc_value, debug)
            yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        root.removeHandler(handler)
        for logger in ours:
            logger.setLevel(logging.NOTSET)


def note_traceback(error: BaseException) -> None:
    """Where an error came from, for a programmer."""
    note_lines("".join(traceback.format_exception(error)))


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def put_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell, numbers to the right, control characters escaped: one row is one line."""
    cells = [[visible(cell) for cell in row] for row in rows]  # before they are measured
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    body = cells[1:] or cells  # the first row may be titles
    right = [all(_is_number(row[column]) for row in body) for column in range(len(widths))]
    for row in cells:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        put("  ".join(parts).rstrip())


def put_matrix(rows: Mapping[str, Mapping[str, object]]) -> None:
    """Named rows of the same named values, under a line of the names; `r10` is shown as `R@10`."""
    columns = list(next(iter(rows.values())))
    titles = [re.sub(r"^r(\d+)$", r"R@\1", column).replace("_", " ") for column in columns]
    body = [(name.replace("_", " "), *(as_cell(row.get(column)) for column in columns)) for name, row in rows.items()]
    put_table([("", *titles), *body])


def put_paths(paths: Iterable[Path], style: Format) -> None:
    """Paths, each with a newline or a NUL behind it: exactly their bytes for a program, visible on a terminal."""
    end = b"\0" if style is Format.PRINT0 else b"\n"
    exact = sys.stdout is None or not sys.stdout.isatty()
    for path in paths:
        _to_stdout((os.fsencode(path) if exact else _encoded(visible(str(path)))) + end)


def put_json(value: object, indent: int | None = 2) -> None:
    """A value as JSON, indented; on one line where `indent` is None."""
    # ASCII: a name that is not UTF-8 becomes \udcXX, which JSON readers take and Python turns back into the same bytes
    text = json.dumps(value, indent=indent, default=_plain).replace("\x7f", "\\u007f")
    _to_stdout(text.encode("ascii") + b"\n")


def put(line: str = "") -> None:
    """One line on stdout."""
    _to_stdout(_encoded(visible(line)) + b"\n")


def flush() -> None:
    """Hand everything over. Raises: CannotShow."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            raise _cannot_show(error) from error


def silence(stream: TextIO | None) -> None:
    """Forget what a stream that takes no more still holds: Python would try once more at its end, and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)


def _to_stdout(data: bytes) -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.buffer.write(data)
        else:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    except OSError as error:
        raise _cannot_show(error) from error


def _to_stderr(line: str) -> None:
    try:
        sys.stderr.buffer.write(_encoded(visible(line)) + b"\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # closed, on a full disk, or there never was one
        silence(sys.stderr)


def _cannot_show(error: OSError) -> CannotShow:
    why = "it is closed" if error.errno == errno.EBADF else error.strerror
    return CannotShow(error.errno, f"the result cannot be shown on stdout: {why}")


def _note_uncaught(error: BaseException | None, debug: bool) -> None:
    if debug and error is not None:
        note_traceback(error)


def _encoded(text: str) -> bytes:
    """Text as the terminal's bytes, escaped where its encoding has none."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # a terminal that is not UTF-8
        return text.encode(sys.getfilesystemencoding(), "backslashreplace")


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udc9f":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return repr(character)[1:-1]


def as_cell(value: object) -> str:
    """A value as a table shows it."""
    return str(round(value, 4)) if isinstance(value, float) else "-" if value is None else str(value)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).replace("-", "", 1).isdigit()


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
