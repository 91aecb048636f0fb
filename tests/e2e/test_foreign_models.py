"""A library that names a model of its giver's choice: no command loads it, runs its code or asks the hub for it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

from indexer.base.personal import remembered
from mmsearch import Library
from mmsearch.cli import app as cli
from mmsearch.inference import trial
from mmsearch.inference.load_model import PRETRAINED
from mmsearch.models.digest import fingerprint
from tests.e2e.conftest import Run
from tests.fakes import FakeEncoder

COMMANDS = {
    "search": ["search", "a dog"],
    "search with a picture": ["search", "--image", "PHOTO"],
    "similar": ["similar", "PHOTO"],
    "similar to another": ["similar", "OTHER"],
    "index": ["index", "PHOTOS"],
    "doctor": ["doctor"],
    "doctor --repair": ["doctor", "--repair"],
    "rebuild": ["rebuild"],
    "serve": ["serve", "--socket"],
    "heads": ["heads", "HEADS"],
}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture
def evil(tmp_path: Path, marker: Path) -> Path:
    """A sentence-transformers folder whose module is a Python file of its own."""
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]))
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').write('code ran')\nclass Module: pass\n")
    save_file({"a": np.zeros(3, np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def library(tmp_path: Path, photos: Path) -> Path:
    with Library.open(tmp_path / "given", model=FakeEncoder()) as made:
        made.index(photos)
    return tmp_path / "given"


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("a socket was asked for")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(f"socket.socket.{name}", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def relabel(library: Path, name: str) -> None:
    with sqlite3.connect(library / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE models SET name = ?", (name,))
    catalog.close()


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("label", ["EVIL", "clip-ViT-B-32", "somebody/model", "\x1b[2J\x9b evil\n" + "x" * 3000])
def test_no_command_loads_what_a_library_names(
    label: str, library: Path, photos: Path, evil: Path, marker: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    relabel(library, str(evil) if label == "EVIL" else label)
    other = tmp_path / "other.png"
    shutil.copy(photos / "red.png", other)
    places = {"PHOTO": photos / "red.png", "OTHER": other, "PHOTOS": photos, "HEADS": tmp_path / "heads"}
    for name, words in COMMANDS.items():
        capfd.readouterr()
        code = cli.main([*(str(places.get(word, word)) for word in words), "--library", str(library)])
        told = capfd.readouterr().err
        assert code == 2, (name, told)
        assert "never named here, called" in told, name
        assert told.count("\n") == 1, name
        assert "\x1b" not in told, name
        assert not marker.exists()
    assert cli.main(["status", "--library", str(library)]) == 0
    assert remembered("models") == {}


@pytest.mark.usefixtures("_no_network")
def test_the_code_of_a_folder_does_not_run_even_where_it_is_named(
    library: Path, evil: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    package = ModuleType("sentence_transformers")  # as 5.x did: it imports what the folder names
    package.SentenceTransformer = lambda folder, **named: exec((Path(folder) / "evil.py").read_text(), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    for command in (["search", "a dog"], ["rebuild"]):
        assert cli.main([*command, "--model", str(evil), "--library", str(library)]) == 2
        assert "runs no code of a model" in capfd.readouterr().err
    assert cli.main(["download", str(evil)]) == 2
    assert not marker.exists()
    assert remembered("models") == remembered("trials") == {}


@pytest.mark.usefixtures("_no_network")
def test_heads_do_not_choose_their_backbone(evil: Path, marker: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = evil.parent / "heads"
    folder.mkdir()
    architecture = {"kind": "backbone", "backbone": str(evil), "latent_dim": 8}
    described = {"format": 1, "name": "heads", "architecture": architecture, "weights_sha256": "0" * 64}
    described |= {"fingerprint": fingerprint(described), "backbone_fingerprint": "12" * 32}
    (folder / "model.json").write_text(json.dumps(described))
    assert cli.main(["search", "a dog", "--model", str(folder), "--library", str(evil.parent / "none")]) == 1
    capfd.readouterr()
    photos = evil.parent / "texts"
    photos.mkdir()
    assert cli.main(["index", str(photos), "--model", str(folder)]) == 2
    assert "stand on a model that was never named here" in capfd.readouterr().err
    assert not marker.exists()


def test_a_model_is_named_once(library: Path, run: Run, photos: Path) -> None:
    told = run("search", "red", "--library", library)
    assert (told.code, told.out) == (2, "")
    assert run("search", "red", "--model", "default", "--library", library).code == 0
    assert run("search", "red", "--library", library).code == 0
    assert run("similar", photos / "red.png", "--library", library).code == 0
    assert run("doctor", "--library", library).code == 0
    assert run("index", photos, "--library", library).code in (0, 3)


def test_a_configured_model_counts_as_named(tmp_path: Path, run: Run, home: Path, photos: Path) -> None:
    for name, seed in (("ours", 1), ("theirs", 2)):
        with Library.open(tmp_path / name, model=FakeEncoder(name="other", seed=seed)) as made:
            made.index(photos)
    (home / "config.toml").write_text('model = "other"\n')
    assert run("search", "red", "--library", tmp_path / "theirs").code == 2  # of the same label
    assert run("search", "red", "--library", tmp_path / "ours").code == 0
    (home / "config.toml").unlink()
    assert run("search", "red", "--library", tmp_path / "ours").code == 0


def test_a_model_folder_that_was_exchanged_is_not_loaded(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in a tuned model inside a library on a shared drive."""
    folder = tmp_path / "mine"
    shutil.copytree(PRETRAINED / "default", folder)
    path = folder / "model.json"
    described = json.loads(path.read_text())
    described["architecture"]["max_tokens"] -= 1
    path.write_text(json.dumps(described | {"fingerprint": fingerprint(described)}))
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("a dog")
    assert cli.main(["index", str(texts), "--model", str(folder)]) == 0
    assert cli.main(["search", "a dog"]) == 0
    described["architecture"]["max_tokens"] -= 1
    path.write_text(json.dumps(described | {"fingerprint": fingerprint(described)}))
    monkeypatch.setattr(trial, "in_process", lambda request: pytest.fail("it was loaded"))
    capfd.readouterr()
    assert cli.main(["search", "a dog"]) == 2
    told = capfd.readouterr().err
    assert "holds other weights now" in told
    assert "rebuild --model" in told
