"""The process of the command line: closed streams, Ctrl-C while modules are imported, little memory, odd locales."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, environment

PROGRAM = (sys.executable, "-m", "mmsearch")


def shell(home: Path, command: str, **more: str) -> subprocess.CompletedProcess[str]:
    line = f"{' '.join(PROGRAM)} {command}"
    return subprocess.run(
        ["bash", "-c", line], env=environment(home, **more), capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("command", "code", "err"),
    [
        ("--version >&-", 2, "mmsearch: the result cannot be shown on stdout: it is closed\n"),
        ("--version >&- 2>&-", 2, ""),
        ("--version >/dev/full", 2, "mmsearch: the result cannot be shown on stdout: No space left on device\n"),
        ("--help >/dev/full", 2, "mmsearch: No space left on device\n"),
        ("--version 2>&-", 0, ""),
        ("status 2>&-", 1, ""),
        ("status 2>/dev/full", 1, ""),
        ("status <&- >&-", 1, "mmsearch: no library at HOME/library; run 'mmsearch index FOLDER' first, or name one"
                              " with --library\n"),
        ("status 2>&1 | true; exit ${PIPESTATUS[0]}", 1, ""),
        ("--help | true; exit ${PIPESTATUS[0]}", 0, ""),
    ],
)  # fmt: skip
def test_streams_that_take_nothing(tmp_path: Path, command: str, code: int, err: str) -> None:
    done = shell(tmp_path, command)
    assert (done.returncode, done.stderr) == (code, err.replace("HOME", str(tmp_path)))


def test_a_closed_stream_is_no_place_for_the_next_file(tmp_path: Path) -> None:
    code = (
        "import os, sys; from mmsearch.cli import app, entry;"
        "app.main = lambda: os.open('/dev/zero', os.O_RDONLY); sys.exit(entry.main())"
    )
    command = f'{sys.executable} -c "{code}" <&- >&- 2>&-'
    assert subprocess.run(["bash", "-c", command], env=environment(tmp_path), cwd=ROOT, timeout=60).returncode > 2


@pytest.mark.parametrize("module", ["typer", "mmsearch.cli.options", "tomllib"])
def test_ctrl_c_while_modules_are_imported(tmp_path: Path, module: str) -> None:
    code = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["mmsearch", "status"]
from mmsearch.cli.entry import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "mmsearch: interrupted; nothing was changed\n")


def test_the_entry_imports_nothing_heavy_before_ctrl_c_is_caught(tmp_path: Path) -> None:
    code = "import sys; from mmsearch.cli import entry; print('typer' in sys.modules or 'logging' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("limit_mb", [70, 200, 400])
def test_little_memory_is_called_that(tmp_path: Path, limit_mb: int) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mb << 20, limit_mb << 20))

    done = subprocess.run(
        [*PROGRAM, "status"], env=environment(tmp_path), capture_output=True, text=True, preexec_fn=limited, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("mmsearch: not enough memory; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "xx_YY.nonsense", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_locale_without_these_letters(tmp_path: Path, locale: dict[str, str]) -> None:
    name = os.fsencode(tmp_path) + b"/\xe9\x9b\xc3\xa9\x1b[2J"
    done = subprocess.run(
        [*PROGRAM, "status", "--library", name], env=environment(tmp_path, **locale), capture_output=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"is not UTF-8; rename it" in done.stderr
    assert b"\x1b" not in done.stderr
