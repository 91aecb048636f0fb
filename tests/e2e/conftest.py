"""Fixtures for the command line: a home folder for each test, a folder of pictures and texts, and `run`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmsearch.cli import app as cli
from tests.e2e.disk import disk
from tests.e2e.runner import load_fake
from tests.e2e.server_thread import runtime
from tests.fakes import paint

__all__ = ["Answer", "Run", "disk", "runtime"]


@dataclass(frozen=True)
class Answer:
    """What one command line gave."""

    code: int
    out: str
    err: str


Run = Callable[..., Answer]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library and the configuration of this test alone."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("MMSEARCH_HOME", str(folder))
    monkeypatch.delenv("MMSEARCH_DEBUG", raising=False)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run one command line in this process, with the fake encoder."""
    monkeypatch.setattr("mmsearch.model_choice.load_encoder", load_fake)

    def command(*arguments: str | Path) -> Answer:
        capfd.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four pictures and two texts; `garden.jpg` has its caption beside it."""
    folder = tmp_path / "photos"
    paint(folder / "red.png", "red", seed=1)
    paint(folder / "blue.png", "blue", seed=2)
    paint(folder / "trip" / "yellow.jpg", "yellow", seed=3)
    paint(folder / "garden.jpg", "green", seed=4)
    (folder / "garden.txt").write_text("a green garden", encoding="utf-8")
    (folder / "notes.md").write_text("blue blue whale", encoding="utf-8")
    return folder


@pytest.fixture
def library(run: Run, photos: Path, home: Path) -> Path:
    assert run("index", photos).code == 0
    return home / "library"
