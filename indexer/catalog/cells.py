"""What a cell of the catalog may hold: rules that a value is checked by as it is read.

A library may come from another person, and SQLite lets any cell hold anything: a text where a number belongs, a number
of any size, a path that leads out of its folder, half a gigabyte. So nothing is made of a value before its rule holds.

In: values as the driver gives them. Out: nothing, or one error that names table, row and column. A rule is said twice:
in Python for a value that was read, in SQL for the doctor, who looks for rows without reading what may be endless.
Next: `columns.py`, the rule of each column; `wrong_rows.py`, which finds the rows that break one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from indexer.base.errors import RowCorrupt

HIGHEST: Final = 2**63 - 1  # of SQLite
MOST: Final = 2**53  # of ids and counters: a thousand a second last for 285,000 years, and counting up never ends
PATH_BYTES: Final = 1 << 15  # of the longest path of any system
SHOWN_CHARS: Final = 60
DAMAGED: Final = "the catalog is damaged: "
REMEDY: Final = "; run 'mmsearch doctor --repair'"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a cell may hold.

    Attributes:
        what: in words.
        sql: the condition in SQL for the column `{c}`.
        holds: the condition in Python, of a value that is there.
        reads: whether SQL does not tell all of it.
        optional: whether there may be nothing.
        screen: of many values at once and much faster: true only where it holds of each.
    """

    what: str
    sql: str
    holds: Callable[[Any], bool]
    reads: bool = False
    optional: bool = False
    screen: Callable[[Sequence[Any]], bool] | None = None

    def or_nothing(self) -> Rule:
        """The same, of a cell that may be empty."""
        return replace(self, optional=True)

    def all_hold(self, values: Sequence[Any]) -> bool:
        """Whether it holds of each of some values."""
        return bool(self.screen and self.screen(values)) or all(map(self.holds, values))

    def condition(self, column: str) -> str:
        """The condition in SQL, true or false of every cell."""
        said = self.sql.format(c=column)
        return f"({column} IS NULL OR ({said}))" if self.optional else f"({column} IS NOT NULL AND ({said}))"


def whole(low: int, high: int = MOST) -> Rule:
    """A whole number within bounds."""

    def holds(value: Any) -> bool:
        return type(value) is int and low <= value <= high

    def screen(values: Sequence[Any]) -> bool:
        return set(map(type, values)) == {int} and low <= min(values) and max(values) <= high

    condition = f"typeof({{c}}) = 'integer' AND {{c}} BETWEEN {low} AND {high}"
    return Rule(f"a whole number from {low} to {high}", condition, holds, screen=screen)


def number(low: float, high: float) -> Rule:
    """A number within bounds, so neither infinite nor NaN."""

    def holds(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high

    condition = f"typeof({{c}}) IN ('integer', 'real') AND {{c}} BETWEEN {low} AND {high}"
    return Rule(f"a number from {low} to {high}", condition, holds)


def words(most_chars: int, pattern: str | None = None) -> Rule:
    """Text of UTF-8 of so many characters at most, all of them like `pattern` (a class as in SQLite's GLOB)."""
    allowed = None if pattern is None else re.compile(f"[{pattern}]*")

    def holds(value: Any) -> bool:
        if type(value) is not str or len(value) > most_chars:
            return False
        return (value.isascii() or _is_unicode(value)) and (allowed is None or allowed.fullmatch(value) is not None)

    condition = f"typeof({{c}}) = 'text' AND length({{c}}) <= {most_chars}"
    condition += "" if pattern is None else f" AND {{c}} NOT GLOB '*[^{pattern}]*'"
    what = f"text of {most_chars} characters at most" + ("" if pattern is None else f" of [{pattern}]")
    return Rule(what, condition, holds, reads=True)


def one_of(*names: str) -> Rule:
    """One of some words."""
    listed = ", ".join(f"'{name}'" for name in names)
    chosen = frozenset(names)
    condition = f"typeof({{c}}) = 'text' AND {{c}} IN ({listed})"

    def holds(value: Any) -> bool:
        return type(value) is str and value in chosen

    return Rule(f"one of {listed}", condition, holds, screen=lambda values: chosen.issuperset(values))


def data(most_bytes: int, of: str = "bytes") -> Rule:
    """Bytes, so many at most."""

    def holds(value: Any) -> bool:
        return type(value) is bytes and len(value) <= most_bytes

    return Rule(f"{of}, {most_bytes} at most", f"typeof({{c}}) = 'blob' AND length({{c}}) <= {most_bytes}", holds)


def relative_path(*, whole_folder: bool = False) -> Rule:
    """The bytes of a path that stays below the folder it starts from; '' for that folder only with `whole_folder`."""
    least = 0 if whole_folder else 1
    inside = "instr(x'2f' || {c} || x'2f', x'2f2e2e2f') = 0 AND instr(x'2f' || {c} || x'2f', x'2f2e2f') = 0"
    inside += " AND instr(x'2f' || {c} || x'2f', x'2f2f') = 0 AND instr({c}, x'00') = 0"
    inside = f"({{c}} = x'' OR ({inside}))" if whole_folder else inside

    def holds(value: Any) -> bool:
        if type(value) is not bytes or not least <= len(value) <= PATH_BYTES or b"\0" in value:
            return False
        parts = value.split(b"/")
        return not value or not (b"" in parts or b".." in parts or b"." in parts)

    def screen(values: Sequence[Any]) -> bool:
        try:
            joined = b"/" + b"/\0/".join(values) + b"/"  # an empty path makes '//' of this
        except TypeError:
            return False
        if max(map(len, values), default=0) > PATH_BYTES:
            return False
        return joined.count(b"\0") == len(values) - 1 and not any(part in joined for part in (b"//", b"/../", b"/./"))

    size = f"typeof({{c}}) = 'blob' AND length({{c}}) BETWEEN {least} AND {PATH_BYTES}"
    return Rule("a path that stays in its folder", f"{size} AND {inside}", holds, screen=screen)


def folder() -> Rule:
    """The bytes of an absolute path, of this system or of another: a library on a NAS has folders of several."""
    starts = "(substr({c}, 1, 1) = x'2f' OR substr({c}, 2, 1) = x'3a' OR substr({c}, 1, 2) = x'5c5c')"
    inside = "instr({c}, x'00') = 0 AND instr({c} || x'2f', x'2f2e2e2f') = 0"

    def holds(value: Any) -> bool:
        if type(value) is not bytes or not len(value) <= PATH_BYTES or b"\0" in value or b"/../" in value + b"/":
            return False
        return value.startswith((b"/", b"\\\\")) or value[1:2] == b":"

    size = f"typeof({{c}}) = 'blob' AND length({{c}}) <= {PATH_BYTES}"
    return Rule("the absolute path of a folder", f"{size} AND {starts} AND {inside}", holds)


def moment() -> Rule:
    """A time as SQLAlchemy writes it: '2019-05-31 18:00:00.000000', without a zone."""

    def holds(value: Any) -> bool:
        try:
            return type(value) is str and datetime.fromisoformat(value).tzinfo is None
        except ValueError:
            return False

    return Rule("a time", "typeof({c}) = 'text' AND length({c}) <= 32", holds, reads=True)


def json_words(most_chars: int) -> Rule:
    """A list of words in JSON."""
    text = words(most_chars)

    def holds(value: Any) -> bool:
        try:
            said = json.loads(value) if text.holds(value) else None
        except (ValueError, RecursionError):
            return False
        return isinstance(said, list) and all(isinstance(word, str) and _is_unicode(word) for word in said)

    return Rule("a list of words in JSON", text.sql, holds, reads=True)


def row_corrupt(table: str, row: int | None, column: str, value: object, rule: Rule) -> RowCorrupt:
    """The error for a cell that breaks its rule."""
    where = f"row {row} of {table}" if row is not None else f"a row of {table}"
    found = f"{where} has {column} = {shown(value)}, not {rule.what}"
    return RowCorrupt(f"{DAMAGED}{found}{REMEDY}")


def shown(value: object) -> str:
    """A value for a message: short, and without what a terminal would act on."""
    if isinstance(value, (str, bytes)) and len(value) > SHOWN_CHARS:
        return f"{value[:SHOWN_CHARS]!a}..."
    return "nothing" if value is None else ascii(value)


def decoded(value: bytes) -> str:
    """Text as it is stored; what is not UTF-8 becomes halves of surrogates, which no rule lets pass."""
    return value.decode("utf-8", "surrogateescape")


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
