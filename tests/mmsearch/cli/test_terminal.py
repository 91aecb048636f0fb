"""Tables, paths and JSON as bytes: aligned, escaped where a terminal would act on them, exact for paths."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mmsearch.cli.terminal import (
    CannotShow,
    Format,
    NoteHandler,
    as_cell,
    count,
    flush,
    note,
    note_lines,
    only_notes,
    put,
    put_json,
    put_matrix,
    put_paths,
    put_table,
    silence,
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


HOSTILE = {
    "escape": ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    "line": ("a\rb\nc\x0b\x08\x7f", "a\\rb\\nc\\x0b\\x08\\x7f"),
    "C1": ("\x9b2J\x80\x9d", "\\x9b2J\\x80\\x9d"),
    "the byte of a C1 character, not UTF-8": (os.fsdecode(b"\x9b2J"), "\\x9b2J"),
    "bytes that make a C1 character": ("\udcc2\udc9b", "\\x9b"),
    "bytes that make a turned direction": ("\udce2\udc80\udcae", "\\u202e"),
    "turned directions": ("\u202a\u202e\u2066\u2069\u061c", "\\u202a\\u202e\\u2066\\u2069\\u061c"),
    "nothing to see": ("a\u200bb\u2060\ufeff\u00ad", "a\\u200bb\\u2060\\ufeff\\xad"),
    "ends of lines": ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
    "half a character": ("\ud800x\udfff", "\\ud800x\\udfff"),
    "half a character between bytes": ("\udcc2\ud800\udc9b", "\udcc2\\ud800\\x9b"),
    "a byte that is not UTF-8 stays": ("caf\udce9", "caf\udce9"),
    "markup is text": ("[red]x[/red] [link=file:///x]", "[red]x[/red] [link=file:///x]"),
    "letters of any script": ("日本 Ünïcode עברית", "日本 Ünïcode עברית"),
}


@pytest.mark.parametrize(("text", "seen"), HOSTILE.values(), ids=HOSTILE)
def test_what_a_terminal_would_act_on_is_made_visible(text: str, seen: str) -> None:
    assert visible(text) == seen
    assert visible(seen) == seen


def control_bytes(data: bytes) -> set[str]:
    """What a terminal would act on in bytes that were printed, ends of lines apart."""
    text = data.decode("utf-8", "surrogateescape")
    return {c for c in text if not (c.isprintable() or c == "\n" or "\udca0" <= c <= "\udcff")}


def test_nothing_that_is_printed_has_control_characters(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for text, _ in HOSTILE.values():
        put(text)
        put_table([(text, text)])
        put_matrix({text: {text: text}})
        put_json({text: text})
        note(text)
        note_lines(f"{text}  {text}")
        with only_notes():
            logging.getLogger("somebody.else").warning("%s", text)
            logging.getLogger("indexer.files").warning("%s", text)
        with only_notes(debug=True):
            warnings.warn(text, stacklevel=1)
    flush()
    out, err = capfdbinary.readouterr()
    assert b"title" in out
    assert err.count(b"title") == 6
    assert control_bytes(out) == control_bytes(err) == set()


def test_paths_are_exact_for_a_program_and_visible_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    name = Path(os.fsdecode(b"\x9b\xe9\x1b[2J"))
    for to_person, seen in ((False, b"\x9b\xe9\x1b[2J"), (True, b"\\x9b\xe9\\x1b[2J")):
        for style, end in ((Format.PATHS, b"\n"), (Format.PRINT0, b"\0")):
            stream = io.TextIOWrapper(io.BytesIO())
            monkeypatch.setattr(stream, "isatty", lambda to_person=to_person: to_person, raising=False)
            monkeypatch.setattr(sys, "stdout", stream)
            put_paths([name], style)
            assert stream.buffer.getvalue() == seen + end  # type: ignore[attr-defined]


def test_stdout_that_takes_no_more_is_an_error_and_stderr_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(CannotShow, match="the result cannot be shown on stdout: it is closed"):
        put("x")
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        put("x")
        with pytest.raises(CannotShow, match="No space left on device"):
            flush()
        silence(full)
    for stream in (None, Path("/dev/full").open("w")):  # noqa: SIM115
        monkeypatch.setattr(sys, "stderr", stream)
        note("x")


def test_threads_that_fail_speak_only_to_programmers(capfd: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise ValueError("\x1b[31m")

    for debug in (False, True):
        with only_notes(debug):
            thread = threading.Thread(target=fails)
            thread.start()
            thread.join()
        err = capfd.readouterr().err
        assert ("Traceback" in err) == debug
        assert "\x1b" not in err


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


def test_a_log_record_is_one_line_once(capfd: pytest.CaptureFixture[str]) -> None:
    with only_notes():
        for name in ("a", "b", "a", "a"):
            logging.getLogger("indexer").warning("%s is damaged", name)
        for number in range(600):
            logging.getLogger("indexer").warning("photo %d", number)
        logging.getLogger("indexer").warning("a is damaged")
    lines = capfd.readouterr().err.splitlines()
    assert lines[:2] == ["mmsearch: a is damaged", "mmsearch: b is damaged"]
    assert lines[-1] == "mmsearch: a is damaged"  # what is remembered is bounded
    assert len(lines) == 603
