"""A library is closed by one thread while others search it: they get their answers, and nothing crashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Run
from tests.e2e.processes import environment


@pytest.mark.parametrize(
    ("how", "rounds"),
    [("close", 200), ("reopen", 30), ("doctor", 5), ("queries", 30), ("searcher", 30), ("store", 30)],
)
def test_closed_while_it_is_searched(run: Run, photos: Path, home: Path, how: str, rounds: int) -> None:
    assert run("index", photos).code == 0
    command = [sys.executable, "-m", "tests.e2e.closing"]
    arguments = [str(home / "library"), str(photos / "red.png"), str(rounds), how]
    done = subprocess.run([*command, *arguments], env=environment(home), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-2000:])  # a crash was -11, always
