"""Rules of cells: the same said twice, in Python and in SQL; messages that a terminal can show."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from indexer.base.errors import RowCorrupt
from indexer.catalog import cells
from indexer.catalog.cells import Rule
from indexer.catalog.columns import RULES, check, check_columns
from tests.lies import VALUES, Text

SOUND: dict[str, Any] = {
    "one": 1,
    "a small number": 3,
    "a place": 12.5,
    "a path": b"trip/2019/red.png",
    "a path that is not UTF-8": b"caf\xe9/a b..c/.hidden/...",
    "a folder": b"/home/anna/photos",
    "a folder of Windows": b"C:\\photos",
    "live": "live",
    "image": "image",
    "own": "own",
    "scan": "scan",
    "a moment": "2019-05-31 18:00:00.000000",
    "keywords": '["a", "b"]',
    "a fingerprint": "ab12" * 16,
    "a vector": b"\x00\x3c" * 16,
}
EVERY = {f"{table}.{column}": rule for table, rules in RULES.items() for column, rule in rules.items()}


def stored(value: Any) -> tuple[Any, Any]:
    """A value as the driver gives it back, and what SQLite is asked about it."""
    return (cells.decoded(value.data), value.data) if isinstance(value, Text) else (value, value)


def in_sql(rule: Rule, value: Any) -> bool:
    cell = "CAST(:value AS TEXT)" if isinstance(value, Text) else ":value"
    query = f"SELECT {rule.condition('cell')} FROM (SELECT {cell} AS cell)"
    with sqlite3.connect(":memory:") as connection:
        return bool(connection.execute(query, {"value": stored(value)[1]}).fetchone()[0])


def in_python(rule: Rule, value: Any) -> bool:
    read = stored(value)[0]
    return rule.optional if read is None else bool(rule.holds(read))


@pytest.mark.parametrize("name", EVERY)
def test_what_sql_finds_wrong_is_wrong_and_what_it_lets_pass_is_read(name: str) -> None:
    rule = EVERY[name]
    for what, value in {**VALUES, **SOUND}.items():
        if rule.reads:
            assert in_sql(rule, value) or not in_python(rule, value), what
        else:
            assert in_sql(rule, value) == in_python(rule, value), what


@pytest.mark.parametrize("name", EVERY)
def test_many_values_at_once_are_judged_as_each_of_them(name: str) -> None:
    rule = EVERY[name]
    read = [stored(value)[0] for value in {**VALUES, **SOUND}.values() if value is not None]
    fine = [value for value in read if rule.holds(value)]
    assert fine, "nothing is right"
    assert rule.all_hold(fine * 2)
    for value in read:
        assert rule.all_hold([*fine, value]) == rule.holds(value)


@pytest.mark.parametrize(
    "path",
    [b"", b"/a", b"a/", b"a//b", b"../a", b"a/../b", b"a/..", b"./a", b"a/.", b"..", b".", b"a\0b", "a", None, 5],
)
def test_a_path_that_leads_out_of_its_folder_is_none(path: Any) -> None:
    with pytest.raises(RowCorrupt, match="row 7 of assets has rel_path = "):
        check("assets", 7, rel_path=path)


def test_the_message_is_short_and_shows_nothing_that_a_terminal_acts_on() -> None:
    with pytest.raises(RowCorrupt) as caught:
        check("assets", 1, camera="\x1b]0;x\x07\x9b31m" + "x" * (1 << 20))
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 300
    assert "row 1 of assets has camera = " in str(caught.value)
    assert str(caught.value).endswith("run 'mmsearch doctor --repair'")


def test_of_many_rows_the_wrong_one_is_named() -> None:
    rows = [(1, b"a.png", None), (2, b"b.png", "no picture"), (3, b"../c.png", None)]
    check_columns("assets", rows[:2], ("id", "rel_path", "error"))
    with pytest.raises(RowCorrupt, match=r"row 3 of assets has rel_path = b'\.\./c\.png'"):
        check_columns("assets", rows, ("id", "rel_path", "error"))
