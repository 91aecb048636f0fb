"""The program around the commands: exit codes, errors in one line, warnings as lines on stderr."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mmsearch import __version__
from mmsearch.cli import app as cli
from mmsearch.errors import LibraryNotFound, QueryError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path))
    monkeypatch.delenv("MMSEARCH_DEBUG", raising=False)


def status_that(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """`mmsearch status` ends with this error."""

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli.options, "open_library", fails)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (LibraryNotFound("no library at /x"), 1, "no library at /x"),
        (QueryError("k is 0"), 2, "k is 0"),
        (ModuleNotFoundError("x", name="pyarrow"), 2, "this needs pyarrow; run \"pip install 'mmsearch[archive]'\""),
        (OSError(28, "No space left on device", "/x/y"), 2,
         "/x/y: No space left on device; make room and run the same command again"),
        (ZeroDivisionError("division"), 2, "unexpected ZeroDivisionError: division; MMSEARCH_DEBUG=1 shows where"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was changed"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    status_that(monkeypatch, error)
    assert cli.main(["status"]) == code
    assert capfd.readouterr() == ("", f"mmsearch: {line}\n")


def test_a_traceback_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status_that(monkeypatch, QueryError("k is 0"))
    assert cli.main(["--debug", "status"]) == 2
    assert "Traceback" in capfd.readouterr().err
    monkeypatch.setenv("MMSEARCH_DEBUG", "1")
    assert cli.main(["status"]) == 2
    assert "Traceback" in capfd.readouterr().err


def test_the_version_and_the_list_of_commands(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capfd.readouterr().out == f"mmsearch {__version__}\n"
    assert cli.main([]) == 0
    shown = capfd.readouterr().out
    assert [name for name in ("index", "search", "similar", "prune", "tune", "eval") if name not in shown] == []


def test_an_option_that_is_not_known_points_to_the_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "red", "--nonsense"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "see 'mmsearch search --help'" in err


def test_warnings_of_ours_are_lines_on_stderr_and_the_handler_goes_away(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def warns(*_: object) -> None:
        logging.getLogger("indexer.vectors").warning("no FAISS;\n  exact search serves")
        logging.getLogger("mmsearch.model").info("a detail")
        raise QueryError("and then")

    monkeypatch.setattr(cli.options, "open_library", warns)
    before = list(logging.getLogger("indexer").handlers)
    assert cli.main(["status"]) == 2
    assert capfd.readouterr().err == "mmsearch: no FAISS; exact search serves\nmmsearch: and then\n"
    assert logging.getLogger("indexer").handlers == before
