"""What the commands share: one format of output, queries from a file, filters, and when a server may answer."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import typer

from mmsearch.cli import options
from mmsearch.cli.app import main
from mmsearch.cli.options import (
    FilterOptions,
    ask_server,
    format_of,
    nothing_found,
    one_blas_thread,
    read_queries,
)
from mmsearch.cli.terminal import Format
from mmsearch.library import Library
from mmsearch.query.hits import Hit


def test_one_format_of_output() -> None:
    assert format_of(False, False, False) is Format.TABLE
    assert format_of(True, False, False) is Format.JSON
    assert format_of(False, True, False) is Format.PATHS
    assert format_of(False, False, True) is Format.PRINT0
    with pytest.raises(typer.BadParameter, match="not two"):
        format_of(True, True, False)


def test_queries_are_the_lines_that_are_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "q.txt").write_bytes("red\n\n  blue  \ncaf\xe9\n".encode("latin-1"))
    assert read_queries(str(tmp_path / "q.txt"), None, None) == ["red", "blue", "caf\udce9"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\n")))
    assert read_queries("-", None, None) == ["one"]
    for text, image in (("red", None), (None, Path("a.png"))):
        with pytest.raises(typer.BadParameter, match="not two of them"):
            read_queries("-", text, image)


@pytest.mark.parametrize("command", ["search", "similar"])
def test_filters(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is typed arrives as `Library` takes it."""
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path))
    asked: list[dict[str, object]] = []

    def answer(self: Library, *query: object, k: int, **filters: object) -> list[Hit]:
        asked.append(filters)
        return []

    monkeypatch.setattr(Library, command, answer)
    assert main([command, "red", "--in", "text", "--folder", "a", "--since", "2019"]) == 1
    assert main([command, "red", "--in", "image", "--until", "2019-05"]) == 1
    assert main([command, "red"]) == 1
    assert asked == [
        {"within": "text", "folder": Path("a"), "since": "2019", "until": None},
        {"within": "image", "folder": None, "since": None, "until": "2019-05"},
        {"within": None, "folder": None, "since": None, "until": None},
    ]


def test_a_server_is_asked_for_the_configured_library_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path))
    asked: list[tuple[object, ...]] = []

    def ask(where: Path, texts: list[str], **rest: object) -> list[list[object]]:
        asked.append((where, texts, rest["k"]))
        return [[]]

    monkeypatch.setattr("mmsearch.server.client.ask", ask)
    narrow = FilterOptions(within=None, folder=None, since=None, until=None)
    assert ask_server(["red"], None, None, narrow, None, None, "auto") == [[]]
    assert ask_server(["red"], None, 3, narrow, tmp_path / "other", None, "auto") == [[]]
    assert asked == [(tmp_path / "library", ["red"], 10), (tmp_path / "other", ["red"], 3)]
    assert ask_server(["red"], None, None, narrow, None, "mine", "auto") is None
    assert ask_server(["red"], None, None, narrow, None, None, "cpu") is None
    assert ask_server([], None, None, narrow, None, None, "auto") is None
    assert len(asked) == 2


def test_one_thread_for_one_query_unless_somebody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    one_blas_thread()
    assert options.os.environ["OPENBLAS_NUM_THREADS"] == "1"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    one_blas_thread()
    assert options.os.environ["OPENBLAS_NUM_THREADS"] == "4"
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")


def test_nothing_found_is_said_and_is_exit_code_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert nothing_found() == 1
    assert capfd.readouterr().err == "mmsearch: nothing found\n"
