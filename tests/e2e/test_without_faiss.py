"""Neither FAISS package installed: everything works, and one line on stderr names both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import environment
from tests.fakes import paint

WITHOUT_FAISS = """
import sys
sys.modules["faiss"] = None  # as where it is not installed
from mmsearch import model_choice
from mmsearch.cli import app as cli
from tests.e2e.runner import load_fake
model_choice.load_encoder = load_fake
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, colour in enumerate(("red", "green", "blue")):
        paint(tmp_path / "photos" / f"{colour}.png", colour, seed=number)
    return tmp_path / "photos"


def test_numpy_serves_and_one_line_names_both_extras(home: Path, photos: Path) -> None:
    for command in (["index", str(photos)], ["search", "red", "-k", "2", "--paths"]):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_FAISS, *command],
            env=environment(home), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        named = [line for line in done.stderr.splitlines() if "mmsearch[cpu]" in line and "mmsearch[gpu]" in line]
        assert len(named) == 1, done.stderr
    assert len(done.stdout.splitlines()) == 2
