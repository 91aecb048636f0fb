"""The README keeps its word: its commands run, its Python runs, its names are the public names, its map is the tree."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

import mmsearch
from mmsearch.cli import app as cli
from mmsearch.config import Config, read_toml
from tests.e2e.runner import load_fake
from tests.fakes import paint

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# trained for hours, on a hub, or on many captions: tests/training and tests/models take the same steps on small models
NOT_AT_HAND = ("runs/", "clip", "../shared", " tune")
MODULES = ("mmsearch", "indexer")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every `mmsearch ...` in the shell blocks, without what a pipe does with it, and in the running text."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(r"`(mmsearch [^`]+)`", README)
    return [shlex.split(line.split(" | ")[0])[1:] for line in lines if line.startswith("mmsearch ")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mmsearch.library._load_encoder", load_fake)
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "photos" / "red.png", "red", seed=1)
    paint(tmp_path / "photos" / "blue.png", "blue", seed=2)
    (tmp_path / "photos" / "notes.txt").write_text("a dog on the beach", encoding="utf-8")
    return tmp_path


def test_every_command_is_parsed_with_its_options() -> None:
    group: Any = typer.main.get_command(cli.app)
    seen = set()
    for words in commands():
        parent = group.make_context("mmsearch", list(words))
        name, rest = words[0], words[1:]
        assert name in group.commands, words
        if rest or name not in ("index", "search", "similar", "train", "eval"):  # `mmsearch index` as a mere name
            group.commands[name].make_context(name, list(rest), parent=parent)
        seen.add(name)
    assert seen == set(group.commands)


def test_the_commands_run(home: Path) -> None:
    for block in blocks("sh"):
        for line in block.splitlines():
            if line.startswith("mmsearch ") and not any(name in line for name in NOT_AT_HAND):
                assert cli.main(shlex.split(line.split(" | ")[0])[1:]) == 0, line


def test_the_python_runs(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(mmsearch.__dict__, "load_model", load_fake)
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["report"].added == 3
    assert [hit.modality for hit in names["texts"]] == ["text"]
    assert "(2, 16) (2, 16)" in capsys.readouterr().out


def test_every_public_name_is_in_the_readme() -> None:
    for name in mmsearch.__all__:
        assert f"`{name}`" in README, name


def test_the_configuration_shown_is_read_and_complete(tmp_path: Path) -> None:
    (code,) = blocks("toml")
    (tmp_path / "config.toml").write_text(code, encoding="utf-8")
    shown = read_toml(Config, tmp_path / "config.toml")
    assert shown == Config(library=Path("~/library").expanduser())
    assert re.findall(r"^(\w+) =", code, flags=re.MULTILINE) == list(Config.__dataclass_fields__)


def test_every_exit_code_is_in_the_readme() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)}
    assert table == {cli.FOUND, cli.NOTHING, cli.ERROR, cli.SKIPPED, cli.INTERRUPTED}


def file_map() -> set[str]:
    """The paths of the first text block, whose indentation is the tree."""
    paths, folders = set(), []
    for line in blocks("text")[0].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        else:
            paths.add("/".join([*folders, name]))
    return paths


def test_the_file_map_is_the_tree() -> None:
    tree = {
        str(path.relative_to(ROOT))
        for package in MODULES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" or path.parent == ROOT / "mmsearch"
    }
    shown = {path for path in file_map() if path.endswith(".py")}
    assert sorted(tree - shown) == [], "add these to the README's file map"
    assert sorted(shown - tree) == [], "these are in the README's file map and not in the tree"
    assert all((ROOT / path).exists() for path in file_map())
