"""Wrong use: one clear line on stderr, nothing on stdout, exit code 2 (1 where there is simply nothing to find)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Answer, Run


def assert_one_line(answer: Answer, code: int, *words: str) -> None:
    assert answer.code == code, answer
    assert answer.out == ""
    assert answer.err.startswith("mmsearch: ")
    assert answer.err.count("\n") == 1, answer.err
    assert answer.err.endswith("\n")
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err, answer.err


def test_no_such_folder_makes_no_library(run: Run, tmp_path: Path, home: Path) -> None:
    assert_one_line(run("index", tmp_path / "absent"), 2, "absent does not exist")
    (tmp_path / "file").touch()
    assert_one_line(run("index", tmp_path / "file"), 2, "file is not a folder")
    assert not (home / "library").exists()


@pytest.mark.parametrize("words", [[], [""], ["  "]])
def test_an_empty_query(run: Run, photos: Path, words: list[str]) -> None:
    run("index", photos)
    assert_one_line(run("search", *words), 2, "the query is empty")


@pytest.mark.parametrize("k", ["0", "-3"])
def test_k_below_one(run: Run, photos: Path, k: str) -> None:
    run("index", photos)
    assert_one_line(run("search", "red", "-k", k), 2, f"k is {k}; expected 1 or more")
    assert_one_line(run("similar", photos / "red.png", "-k", k), 2, f"k is {k}; expected 1 or more")


def test_k_that_is_no_number(run: Run) -> None:
    assert_one_line(run("search", "red", "-k", "many"), 2, "'-k'", "is not a valid int", "mmsearch search --help")


def test_a_library_written_with_another_model(run: Run, photos: Path) -> None:
    run("index", photos)
    assert_one_line(run("search", "red", "--model", "other"), 2, "'default'", "'other'", "mmsearch rebuild")
    assert_one_line(run("similar", photos / "red.png", "--model", "other"), 2, "mmsearch rebuild")


def test_a_model_that_is_not_there_makes_no_library(run: Run, photos: Path, home: Path) -> None:
    assert_one_line(run("index", photos, "--model", "absent"), 2, "no model 'absent'")
    assert not (home / "library").exists()


def test_an_unknown_key_in_the_configuration(run: Run, home: Path) -> None:
    (home / "config.toml").write_text('modell = "default"\n', encoding="utf-8")
    assert_one_line(run("search", "red"), 2, "config.toml", "unknown key 'modell'", "'model'")


def test_similar_to_a_file_that_is_not_there_or_no_picture(run: Run, photos: Path, tmp_path: Path) -> None:
    run("index", photos)
    assert_one_line(run("similar", tmp_path / "absent.jpg"), 2, "absent.jpg does not exist")
    assert_one_line(run("similar", photos), 2, "is a folder")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    assert_one_line(run("similar", tmp_path / "broken.jpg"), 2, "broken.jpg: not a picture")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch", "red"], ["'serch'", "search"]),
        (["search", "red", "--jsn"], ["--jsn", "mmsearch search --help"]),
        (["index"], ["mmsearch index --help"]),
        (["index", "a", "b"], ["(b)", "mmsearch index --help"]),
        (["search", "red", "--in", "sound"], ["'sound'", "image", "text"]),
        (["search", "red", "--device", "tpu"], ["'tpu'", "cuda"]),
        (["search", "red", "--json", "--paths"], ["--json, --paths, --print0"]),
    ],
)
def test_a_slip_on_the_command_line(run: Run, arguments: list[str], words: list[str]) -> None:
    assert_one_line(run(*arguments), 2, *words)


def test_a_library_that_cannot_be_made(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_line(run("index", photos, "--library", tmp_path / "file"), 2, "cannot be made", "--library")


def test_a_damaged_library_is_one_line(run: Run, photos: Path, home: Path) -> None:
    run("index", photos)
    for path in (home / "library").rglob("*"):
        if path.is_file() and path.read_bytes()[:6] == b"SQLite":
            path.write_bytes(b"not a database " * 1000)
    assert_one_line(run("search", "red"), 2)


def test_nothing_indexed_and_nothing_found_are_exit_code_one(run: Run, tmp_path: Path) -> None:
    assert_one_line(run("search", "red"), 1, "mmsearch index")
    assert_one_line(run("status"), 1, "mmsearch index")
    (tmp_path / "empty").mkdir()
    assert run("index", tmp_path / "empty").code == 0
    assert_one_line(run("search", "red"), 1, "nothing found")
    none = run("search", "red", "--json")
    assert none.code == 1
    assert json.loads(none.out) == {"query": "red", "hits": []}


def test_an_unexpected_error_is_one_line_and_a_traceback_on_request(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", photos)

    def fail(name: str, device: str) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("mmsearch.model_choice.load_encoder", fail)
    assert_one_line(run("search", "red"), 2, "RuntimeError: first line second line", "MMSEARCH_DEBUG=1")
    assert "Traceback" in run("--debug", "search", "red").err
    monkeypatch.setenv("MMSEARCH_DEBUG", "1")
    shown = run("search", "red")
    assert shown.code == 2
    assert "Traceback" in shown.err


def test_help_and_version(run: Run) -> None:
    bare = run()
    assert bare.code == 0
    for command in ("index", "search", "similar", "status", "errors", "rebuild", "train", "eval"):
        assert f"  {command} " in bare.out
        assert run(command, "--help").code == 0
    assert run("--version").out.startswith("mmsearch 0.")


@pytest.mark.parametrize("address", ["postgresql://me:secret@host/photos", "sqlite:///library/catalog.sqlite"])
def test_a_library_that_is_an_address(run: Run, photos: Path, home: Path, address: str) -> None:
    (home / "config.toml").write_text(f'library = "{address}"\n')
    for command in (("index", photos), ("search", "red"), ("status",), ("index", photos, "--library", address)):
        answer = run(*command)
        assert (answer.code, len(answer.err.splitlines())) == (2, 1)
        assert "must be a folder: the catalog is a SQLite file" in answer.err
        assert "secret" not in answer.err
    assert not list(photos.parent.glob("*sql*"))
