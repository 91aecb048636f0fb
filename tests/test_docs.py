"""The documents keep their word: commands and Python run, names are the public ones, links and maps fit the tree."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from PIL import Image

import mmsearch
from mmsearch.cli import app as cli
from mmsearch.cli import demo, options
from mmsearch.config import Config, read_toml
from tests.bench import contact_sheet
from tests.e2e.runner import load_fake
from tests.fakes import paint

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
# every document in the tree; folders that git ignores hold none of ours
DOCS = sorted(
    path
    for path in (README, *(p for top in ("data", "indexer", "mmsearch", "tests") for p in (ROOT / top).rglob("*.md")))
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in DOCS}
# trained for hours, on a hub, or on many captions: tests/training and tests/models take the same steps on small models
NOT_AT_HAND = ("runs/", "clip", "../shared", " tune", " train ", " eval ", " heads ")

every_doc = pytest.mark.parametrize("doc", TEXTS)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def lines_of(text: str) -> list[str]:
    """What a reader may type: lines of shell blocks and of indented blocks, and each command in the running text."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    lines += re.findall(r"^ {4}((?:mmsearch|python -m|make) [^>]*)$", text, flags=re.MULTILINE)
    return lines + re.findall(r"`((?:mmsearch|python -m|make|pip) [^`]+)`", text)


def commands(text: str) -> list[list[str]]:
    """The arguments of every `mmsearch ...`, without what a pipe does with its output."""
    return [shlex.split(line.split(" | ")[0])[1:] for line in lines_of(text) if line.startswith("mmsearch ")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mmsearch.model_choice.load_encoder", load_fake)
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "photos" / "beach.jpg", "red", seed=1)
    paint(tmp_path / "photos" / "blue.png", "blue", seed=2)
    with Image.open(tmp_path / "photos" / "beach.jpg") as beach:
        taken = beach.getexif()
        taken[0x0132] = "2019:06:01 12:00:00"  # DateTime
        beach.save(tmp_path / "photos" / "beach.jpg", exif=taken)
    (tmp_path / "photos" / "notes.txt").write_text("a dog on the beach", encoding="utf-8")
    return tmp_path


@every_doc
def test_every_command_is_parsed_with_its_options(doc: str) -> None:
    group: Any = typer.main.get_command(cli.app)
    for words in commands(TEXTS[doc]):
        if words[0].startswith("-"):  # `mmsearch --help`
            continue
        parent = group.make_context("mmsearch", list(words))
        name, rest = words[0], words[1:]
        assert name in group.commands, words
        if rest and "..." not in rest and "--help" not in rest:  # `mmsearch index` as a mere name
            group.commands[name].make_context(name, list(rest), parent=parent)


def test_every_command_is_in_a_document() -> None:
    group: Any = typer.main.get_command(cli.app)
    shown = {words[0] for text in TEXTS.values() for words in commands(text)}
    assert set(group.commands) - shown == set()


@every_doc
def test_the_commands_run(doc: str, home: Path) -> None:
    lines = [line for block in blocks(TEXTS[doc], "sh") for line in block.splitlines()]
    ours = [line for line in lines if line.startswith("mmsearch ") and not any(name in line for name in NOT_AT_HAND)]
    if ours:
        assert cli.main(["index", "./photos"]) == 0
    for line in ours:
        assert cli.main(shlex.split(line.split(" | ")[0])[1:]) == 0, line


@every_doc
def test_the_python_runs(doc: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mmsearch.__dict__, "load_model", load_fake)
    for code in blocks(TEXTS[doc], "python"):
        exec(compile(code, doc, "exec"), {})


def test_the_python_of_the_readme_finds_what_is_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(mmsearch.__dict__, "load_model", load_fake)
    (code,) = blocks(TEXTS["README.md"], "python")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["report"].added == 3
    assert [hit.modality for hit in names["texts"]] == ["text"]
    assert "(2, 16) (2, 16)" in capsys.readouterr().out


@every_doc
def test_every_program_and_target_is_there(doc: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for line in lines_of(TEXTS[doc]):
        if line.startswith("make "):
            assert line.split()[1] in targets, line


def test_every_program_that_is_named_anywhere_is_there() -> None:
    files = [
        path
        for top in ("mmsearch", "indexer", "tests")
        for kind in ("py", "toml")
        for path in (ROOT / top).rglob(f"*.{kind}")
    ]
    for path in (*DOCS, ROOT / "CHANGELOG.md", ROOT / "Makefile", *files):
        for name in re.findall(r"python -m ((?:mmsearch|indexer|tests)[\w.]*\w)", path.read_text(encoding="utf-8")):
            assert name == "tests.bench.NAME" or importlib.util.find_spec(name) is not None, f"{path}: {name}"


def test_every_module_that_is_named_is_there() -> None:
    tree = [
        f"/{path.relative_to(ROOT)}" for top in ("mmsearch", "indexer", "tests") for path in (ROOT / top).rglob("*.py")
    ]
    sources = [ROOT / path[1:] for path in tree if not path.startswith("/tests/")]
    for path in (*DOCS, *sources):
        for name in re.findall(r"`(?:\.\./)*([\w/]+\.py)`", path.read_text(encoding="utf-8")):
            assert any(module.endswith(f"/{name}") for module in tree), f"{path.relative_to(ROOT)} names {name}"


def test_the_changelog_keeps_its_form() -> None:
    release = r"## (Unreleased|\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d)"
    kind = "### (Added|Changed|Deprecated|Removed|Fixed|Security)"
    for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()[4:]:
        assert re.fullmatch(rf"({release}|{kind}|\* .+\.)?", line), line


@every_doc
def test_links_lead_to_files_and_headings_that_are_there(doc: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[doc]):
        if re.match(r"https?:", link):
            continue
        path, _, heading = link.partition("#")
        target = (ROOT / doc).parent / path if path else ROOT / doc
        assert target.exists(), link
        if heading:
            assert heading in set(slugs(target.read_text(encoding="utf-8"))), link


def slugs(text: str) -> Iterator[str]:
    """The names that GitHub gives to headings."""
    for title in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@every_doc
def test_nothing_of_one_machine_is_told(doc: str) -> None:
    assert not re.search(r"(?<![\w.])/(work|home|root|tmp|opt|Users)\b", TEXTS[doc])


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 250


def test_every_public_name_is_documented() -> None:
    for name in mmsearch.__all__:
        assert f"`{name}`" in TEXTS["mmsearch/README.md"], name


def test_every_method_of_a_library_is_documented() -> None:
    public = [
        name
        for name in vars(mmsearch.Library)
        if not name.startswith("_") and callable(getattr(mmsearch.Library, name))
    ]
    for name in public:
        assert re.search(rf"`{name}\(", TEXTS["mmsearch/README.md"]), name


@pytest.mark.parametrize("shape", [mmsearch.Hit, mmsearch.IndexReport, mmsearch.Posterior])
def test_every_field_is_documented(shape: type) -> None:
    (row,) = re.findall(rf"^\| `{shape.__name__}` \|.*$", TEXTS["mmsearch/README.md"], flags=re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) >= {field.name for field in dataclasses.fields(shape)}


@pytest.mark.parametrize("arguments", [["index", "./photos"], ["search", "a dog"], ["doctor"]])
def test_the_json_has_the_keys_that_are_documented(
    arguments: list[str], home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["index", "./photos"]) == 0
    capfd.readouterr()
    assert cli.main([*arguments, "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    (row,) = re.findall(rf"^\| `{arguments[0]} --json`.*$", TEXTS["mmsearch/cli/README.md"], flags=re.MULTILINE)
    documented = set(re.findall(r"\w+", row))
    nested = [key for kind in ("hits", "checks") for item in printed.get(kind, []) for key in item]
    assert documented >= {*printed, *nested}


def test_the_configuration_shown_is_read_and_complete(tmp_path: Path) -> None:
    (code,) = blocks(TEXTS["README.md"], "toml")
    (tmp_path / "config.toml").write_text(code, encoding="utf-8")
    shown = read_toml(Config, tmp_path / "config.toml")
    assert shown == Config(library=Path("~/library").expanduser())
    assert re.findall(r"^(\w+) =", code, flags=re.MULTILINE) == list(Config.__dataclass_fields__)


def test_every_exit_code_is_documented() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXTS["mmsearch/cli/README.md"], flags=re.MULTILINE)}
    assert table == {value for name, value in vars(options).items() if name.startswith("EXIT_")}


@pytest.mark.parametrize("package", ["mmsearch", "indexer"])
def test_the_map_of_rooms_is_the_tree(package: str) -> None:
    (shown,) = [block for block in blocks(TEXTS[f"{package}/README.md"], "text") if block.startswith(f"{package}/\n")]
    rooms, above = set(), [package]
    for line in shown.splitlines()[1:]:
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], line.split()[0].rstrip("/")]
        rooms.add("/".join(above))
    holding = ("*.py", "model.json")
    tree = {
        str(path.parent.relative_to(ROOT))
        for pattern in holding
        for path in (ROOT / package).rglob(pattern)
        if path.parent != ROOT / package
    }
    tree |= {str(Path(folder).parent) for folder in tree} - {package}
    assert rooms == tree


def test_every_extra_is_named_and_every_hint_names_an_extra() -> None:
    code = [path.read_text(encoding="utf-8") for top in ("mmsearch", "indexer") for path in (ROOT / top).rglob("*.py")]
    for text in (*TEXTS.values(), *code):
        for named in re.findall(r"(?:mmsearch|\.|whl)\[([a-z,]+)\]'", text):
            assert set(named.split(",")) <= set(EXTRAS), named
    table = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", TEXTS["README.md"], flags=re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(table))) == set(EXTRAS) - {"demo", "dev", "init"}


def test_an_extra_is_added_to_an_installed_mmsearch_by_its_name() -> None:
    """As every hint says: pip takes the mmsearch that is there, from wherever it came, and adds what is missing."""
    asked = [sys.executable, "-m", "pip", "install", "--no-index", "--dry-run", "mmsearch[heif,video]"]
    if importlib.util.find_spec("pip") is None:
        pytest.skip("no pip in this environment")
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout


def test_the_licence_of_the_weights_is_in_the_package_and_told() -> None:
    project = PYPROJECT["project"]
    assert project["license"] == "Apache-2.0 AND LicenseRef-mmsearch-weights"
    for name in project["license-files"]:
        assert (ROOT / name).is_file(), name
        assert f"({name})" in TEXTS["README.md"] or name == "LICENSE"
    for told in ("README.md", "mmsearch/pretrained/default/README.md"):
        assert "research and personal use" in re.sub(r"[\s>*]+", " ", TEXTS[told])


def test_the_picture_is_small_and_every_photo_in_it_has_a_credit() -> None:
    picture = ROOT / "data" / "demo.jpg"
    assert picture.stat().st_size <= contact_sheet.MAX_BYTES
    credit = TEXTS["data/README.md"].split("## `demo.jpg`")[1].split("\n## ")[0]
    for photo in contact_sheet.FREE:
        assert photo in demo.PHOTOS
        assert re.search(rf"\b{Path(photo).stem}\b", credit), photo
    assert set(contact_sheet.SEARCHES) <= set(demo.SEARCHES)
