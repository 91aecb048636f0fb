"""Tables, paths and JSON as bytes: aligned, escaped where a terminal would act on them, exact for paths."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mmsearch.cli.terminal import (
    Format,
    NoteHandler,
    as_cell,
    count,
    note,
    put_json,
    put_matrix,
    put_paths,
    put_table,
    visible,
)


def shown(capfd: pytest.CaptureFixture[str]) -> list[str]:
    sys.stdout.flush()
    return capfd.readouterr().out.splitlines()


def test_numbers_stand_on_the_right_and_words_on_the_left(capfd: pytest.CaptureFixture[str]) -> None:
    put_table([("name", "n"), ("a", "10.5"), ("longer", "-"), ("b", "-3")])
    assert shown(capfd) == ["name       n", "a       10.5", "longer     -", "b         -3"]
    put_table([])
    assert shown(capfd) == []


def test_one_row_is_one_line_whatever_it_holds(capfd: pytest.CaptureFixture[str]) -> None:
    put_table([("a\nb\x1b[31m", "日本")])
    assert shown(capfd) == ["a\\nb\\x1b[31m  日本"]
    assert (
        visible("caf\udce9\u202e") == "caf\udce9\\u202e"
    )  # a byte that is not UTF-8 stays, a turned direction does not


def test_a_matrix_has_its_columns_as_titles(capfd: pytest.CaptureFixture[str]) -> None:
    put_matrix({"text_to_image": {"r1": 20.5, "median_rank": None}, "other": {"r1": 3}})
    assert [line.split() for line in shown(capfd)] == [
        ["R@1", "median", "rank"], ["text", "to", "image", "20.5", "-"], ["other", "3", "-"],
    ]  # fmt: skip


def test_paths_end_with_a_newline_or_a_nul(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    paths = [Path("a b"), Path(os.fsdecode(b"\xff"))]
    put_paths(paths, Format.PATHS)
    put_paths(paths, Format.PRINT0)
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"a b\n\xff\na b\0\xff\0"


def test_json_takes_times_and_paths(capfd: pytest.CaptureFixture[str]) -> None:
    put_json({"when": datetime(2026, 1, 2, tzinfo=UTC), "path": Path("x")})
    assert json.loads("\n".join(shown(capfd))) == {"when": "2026-01-02T00:00:00+00:00", "path": "x"}


def test_a_note_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    note("two\n  lines")
    NoteHandler().emit(logging.LogRecord("x", logging.WARNING, "", 0, "%s left", (3,), None))
    assert capfd.readouterr().err == "mmsearch: two lines\nmmsearch: 3 left\n"


def test_values_in_a_table() -> None:
    assert [as_cell(value) for value in (1.23456, None, 7, "x")] == ["1.2346", "-", "7", "x"]
    assert (count(1, "file"), count(2, "file"), count(0, "file")) == ("1 file", "2 files", "0 files")
