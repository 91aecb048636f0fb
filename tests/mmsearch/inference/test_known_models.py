"""Models are known by fingerprints: the one that ships, those that were named, those that were made here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from indexer.base.types import Model
from mmsearch.errors import ModelNotNamed
from mmsearch.inference.known_models import (
    declared_fingerprint,
    fingerprint_of,
    known_models,
    label,
    name_of,
    remember_made,
    remember_model,
)
from mmsearch.models.files import SHIPPED
from tests.fakes import FakeEncoder


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))


def test_the_model_that_ships_is_known_and_nobody_takes_its_place(tmp_path: Path) -> None:
    shipped = declared_fingerprint(str(SHIPPED))
    assert shipped is not None
    assert known_models() == {shipped: "default"}
    shutil.copytree(SHIPPED, tmp_path / "copy")
    remember_made(tmp_path / "copy")
    assert known_models() == {shipped: "default"}
    assert name_of(Model(1, shipped, "/theirs", 256)) == "default"


def test_what_was_named_is_known_by_its_full_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, under = FakeEncoder(seed=1), FakeEncoder(name="clip", seed=2)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    model.backbone = under  # type: ignore[attr-defined]
    remember_model(model, "mine")
    known = known_models()
    assert (known[model.fingerprint], known[under.fingerprint]) == (str(tmp_path / "mine"), "clip")
    with pytest.raises(ModelNotNamed):
        name_of(Model(1, FakeEncoder(seed=3).fingerprint, "clip", 16))


def test_the_fingerprint_of_heads_is_that_of_both_parts(tmp_path: Path) -> None:
    described = json.loads((SHIPPED / "model.json").read_text())
    assert fingerprint_of(described) == described["fingerprint"]
    assert fingerprint_of(described | {"backbone_fingerprint": "ab"}) != described["fingerprint"]
    assert declared_fingerprint(str(tmp_path)) is declared_fingerprint("clip-ViT-B-32") is None
    (tmp_path / "model.json").write_text("{")
    assert declared_fingerprint(str(tmp_path)) is None


def test_a_label_is_short_and_shows_what_it_is() -> None:
    assert label("clip") == "'clip'"
    assert label("a\x1b[2J\u202e\x9b\n") == r"'a\x1b[2J\u202e\x9b\n'"
    assert len(label("x" * 10_000)) < 100
