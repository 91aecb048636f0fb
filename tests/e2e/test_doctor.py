"""`mmsearch doctor` as a person types it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.conftest import Run
from tests.fakes import FakeEncoder


def spoil(home: Path, statement: str) -> None:
    with closing(sqlite3.connect(home / "library" / "catalog.sqlite")) as connection, connection:
        assert connection.execute(statement).rowcount > 0


def test_a_sound_library(run: Run, photos: Path) -> None:
    run("index", photos)
    answer = run("doctor")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert all(line.startswith("ok  ") for line in lines)
    assert any("sample" in line and "0 of 6 files" in line for line in lines)
    report = json.loads(run("doctor", "--json", "--sample", 0).out)
    assert report["sound"] is True
    assert "sample" not in {check["name"] for check in report["checks"]}


def test_faults_are_shown_and_mended(run: Run, photos: Path, home: Path) -> None:
    run("index", photos)
    before = run("search", "red", "--json").out
    spoil(home, "UPDATE vectors SET mu = zeroblob(3) WHERE kind = 1")
    bad = run("doctor")
    assert bad.code == 3
    assert "FAULT  vectors" in bad.out
    assert bad.err == "mmsearch: 4 faults left; run 'mmsearch doctor --repair'\n"
    mended = run("doctor", "--repair")
    assert (mended.code, mended.err) == (0, "")
    assert "mended  vectors" in mended.out
    assert run("search", "red", "--json").out == before
    assert json.loads(run("doctor", "--json").out)["sound"] is True


def test_a_damaged_database_is_saved_and_its_folders_are_named_again(run: Run, photos: Path, home: Path) -> None:
    run("index", photos)
    before = run("search", "red", "--json").out
    (home / "library" / "catalog.sqlite").write_bytes(b"not a database " * 1000)
    told = run("search", "red")
    assert told.code == 2
    assert "run 'mmsearch doctor --repair'" in told.err
    answer = run("doctor", "--repair")
    assert answer.code == 0
    assert "catalog.sqlite.bad-" in answer.out
    assert "run 'mmsearch index FOLDER'" in answer.err
    assert run("index", photos).code == 0
    assert run("search", "red", "--json").out == before


def test_the_model_is_not_loaded_without_a_sample(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, device: str) -> FakeEncoder:
        raise AssertionError(f"{name} was loaded on {device}")

    run("index", photos)
    monkeypatch.setattr("mmsearch.model_choice.load_encoder", load)
    assert run("doctor", "--sample", 0).code == 0


def test_the_sample_is_encoded_by_the_model_that_wrote_the_library(run: Run, photos: Path) -> None:
    run("index", photos, "--model", "other")
    answer = run("doctor")
    assert (answer.code, answer.err) == (0, "")
    assert any("sample" in line and "0 of 6 files" in line for line in answer.out.splitlines())
    told = run("doctor", "--model", "default")
    assert told.code == 2
    assert "was written with model 'other'" in told.err


def test_nothing_indexed_yet(run: Run) -> None:
    answer = run("doctor")
    assert answer.code == 1
    assert "mmsearch index" in answer.err
