"""Maintenance from the command line: offline folders, relocate, prune, excludes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Run


def test_a_drive_that_is_not_there_is_counted_and_moves(run: Run, photos: Path, tmp_path: Path) -> None:
    run("index", photos)
    photos.rename(tmp_path / "elsewhere")
    answer = run("index", photos, "--json")
    assert answer.code == 0
    assert (json.loads(answer.out)["offline"], json.loads(answer.out)["encoded"]) == (6, 0)
    assert answer.err.startswith(f"mmsearch: {photos} is not there: its files stay in the library")
    assert ", 6 offline in " in run("index", photos).out
    assert run("index", photos / "trip", "--json").code == 0
    assert run("index", tmp_path / "never", "--json").code == 2
    assert run("search", "red").code == 1
    answer = run("relocate", photos, tmp_path / "elsewhere", "--json")
    assert json.loads(answer.out) == {"files": 6, "old": str(photos), "new": str(tmp_path / "elsewhere")}
    assert run("search", "red", "--paths", "-k", 1).out == f"{tmp_path / 'elsewhere' / 'red.png'}\n"
    again = run("relocate", photos, tmp_path / "elsewhere")
    assert (again.code, again.out, again.err.count("\n")) == (2, "", 1)


def test_prune_lists_forgets_and_says_what_stays(run: Run, photos: Path) -> None:
    run("index", photos)
    (photos / "red.png").unlink()
    (photos / "trip" / "yellow.jpg").unlink()
    run("index", photos)
    for _ in range(2):
        answer = run("prune", "--dry-run")
        assert (answer.code, answer.out) == (0, f"{photos / 'red.png'}\n")
        assert answer.err.startswith("mmsearch: 1 file would be forgotten\nmmsearch: 1 file held back: ")
    answer = run("prune", "--json")
    assert json.loads(answer.out) == {
        **{"removed": 1, "held_back": 1, "present": 0, "offline": 0, "not_yours": 0, "dry_run": False},
        "paths": [str(photos / "red.png")],
    }
    assert run("prune").out == ""
    assert run("prune", photos / "trip").out == f"{photos / 'trip' / 'yellow.jpg'}\n"
    assert json.loads(run("status", "--json").out)["missing"] == 0
    assert run("prune", "--offline").code == 2
    assert "--offline FOLDER" in run("prune", "--offline").err


def test_a_name_that_is_not_utf8_is_listed_as_it_is(run: Run, photos: Path) -> None:
    name = photos / os.fsdecode(b"caf\xe9.png")
    (photos / "red.png").rename(name)
    run("index", photos)
    name.unlink()
    run("index", photos)
    assert json.loads(run("prune", "--json").out)["paths"] == [str(name)]


def test_excludes_of_a_run_and_of_the_configuration(run: Run, photos: Path, home: Path) -> None:
    report = json.loads(run("index", photos, "--exclude", "*.jpg", "--exclude", "notes.*", "--json").out)
    assert report["added"] == 3
    assert json.loads(run("index", photos, "--json").out)["added"] == 3
    (home / "config.toml").write_text("exclude = ['*.jpg']\n")
    run("index", photos)
    assert json.loads(run("status", "--json").out)["missing"] == 2
    bad = run("index", photos, "--exclude", "!")
    assert (bad.code, bad.err) == (2, "mmsearch: '!' is no pattern; write it as in a .gitignore, such as '*.gif'\n")
    (home / "config.toml").write_text("exclude = ['!']\n")
    assert "config.toml: '!' is no pattern" in run("status").err


def test_index_with_another_model_takes_the_library_over(run: Run, photos: Path) -> None:
    run("index", photos)
    before = run("search", "red", "--json").out
    answer = run("index", photos, "--model", "other", "--json")
    report = json.loads(answer.out)
    assert (answer.code, report["unchanged"], report["encoded"]) == (0, 6, 6)
    assert answer.err.startswith("mmsearch: the library goes over from model 'default' to 'other': every file")
    assert json.loads(run("status", "--json").out)["model_name"] == "other"
    assert run("search", "red", "--json").out != before
    assert json.loads(run("index", photos, "--json").out)["encoded"] == 0
    assert run("search", "red", "--model", "default").code == 2


def test_a_backup_answers_like_the_library(run: Run, photos: Path, tmp_path: Path) -> None:
    run("index", photos)
    before = run("search", "red", "--json").out
    answer = run("backup", tmp_path / "copy", "--json")
    report = json.loads(answer.out)
    assert (answer.code, report["path"], report["files"]) == (0, str(tmp_path / "copy"), 6)
    assert run("search", "red", "--json", "--library", tmp_path / "copy").out == before
    again = run("backup", tmp_path / "copy")
    assert (again.code, again.err.count("\n")) == (2, 1)


def test_an_archive_makes_the_same_library_elsewhere(run: Run, photos: Path, tmp_path: Path) -> None:
    run("index", photos)
    before = run("search", "red", "--json").out
    assert run("export", tmp_path / "a.tar").code == 0
    assert run("export", tmp_path / "a").code == 0
    for number, source in enumerate(("a.tar", "a")):
        library = tmp_path / f"library{number}"
        assert json.loads(run("import", tmp_path / source, "--library", library, "--json").out)["files"] == 6
        assert run("search", "red", "--json", "--library", library).out == before
    refused = run("import", tmp_path / "a.tar")
    assert (refused.code, refused.out) == (2, "")
    assert "is there already" in refused.err
    (tmp_path / "no.tar").write_bytes(b"\0" * 5000)
    refused = run("import", tmp_path / "no.tar", "--library", tmp_path / "new")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert not (tmp_path / "new").exists()


def test_without_pyarrow_the_extra_is_named(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", photos)
    for name in [name for name in sys.modules if name.startswith("indexer.transfer")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "mmsearch[archive]" in run("export", tmp_path / "a").err
