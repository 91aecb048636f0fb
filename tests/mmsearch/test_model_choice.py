"""Which model is meant, in every combination of what was asked for, what wrote the library and what is configured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from indexer.base.types import Encoder, Model
from mmsearch import ModelMismatch, model_choice
from mmsearch.inference.load_model import PRETRAINED
from mmsearch.model_choice import Choice, LibraryModel, full_name, resolve
from tests.fakes import FakeEncoder

GIVEN, OTHER = FakeEncoder(name="given"), FakeEncoder(name="given", seed=1)
BY_GIVEN = Model(1, GIVEN.fingerprint, "given", GIVEN.dim)
BY_MINE = Model(1, "ab" * 32, "mine", 16)


@pytest.mark.parametrize(
    ("requested", "stored", "configured", "expected"),
    [
        (None, None, "set", Choice("set", "configured", False)),
        (None, BY_MINE, "set", Choice("mine", "stored", True)),
        (None, BY_MINE, "mine", Choice("mine", "stored", True)),
        ("mine", None, "set", Choice("mine", "requested", False)),
        ("mine", BY_MINE, "set", Choice("mine", "requested", True)),
        ("other", BY_MINE, "other", Choice("other", "requested", False)),
        (GIVEN, None, "set", Choice(GIVEN, "requested", False)),
        (GIVEN, BY_GIVEN, "set", Choice(GIVEN, "requested", True)),
        (OTHER, BY_GIVEN, "given", Choice(OTHER, "requested", False)),  # of the same name, with other weights
        (GIVEN, BY_MINE, "set", Choice(GIVEN, "requested", False)),
    ],
)
def test_resolve(requested: str | Encoder | None, stored: Model | None, configured: str, expected: Choice) -> None:
    assert resolve(requested, stored, configured) == expected


def test_a_name_that_is_a_path_holds_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "default").mkdir()
    monkeypatch.chdir(tmp_path)
    assert full_name("mine") == str(tmp_path / "mine")
    assert full_name("default") == "default"  # the model that ships, whatever lies here
    assert full_name("clip-ViT-B-32") == "clip-ViT-B-32"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were loaded; a model's weights follow from its name."""
    names: list[str] = []

    def load(name: str, device: str) -> FakeEncoder:
        names.append(name)
        return FakeEncoder(name=name, seed=len(name))

    monkeypatch.setattr(model_choice, "load_encoder", load)
    return names


def wrote(name: str) -> Model:
    return Model(1, FakeEncoder(seed=len(name)).fingerprint, name, 16)


def test_a_model_is_loaded_once(loaded: list[str]) -> None:
    model = LibraryModel(None, "set", "cpu")
    assert model.load(None) is model.load(wrote("set"))
    assert loaded == ["set"]
    model.forget()
    model.load(None)
    assert loaded == ["set", "set"]


def test_what_the_library_changed_to_is_loaded_anew_and_only_where_the_library_decides(
    loaded: list[str], tmp_path: Path
) -> None:
    model = LibraryModel(None, "set", "cpu")
    assert model.load_matching(wrote("first"), tmp_path).name == "first"
    assert model.load_matching(wrote("second"), tmp_path).name == "second"
    assert loaded == ["first", "second"]
    asked = LibraryModel("first", "set", "cpu")
    with pytest.raises(ModelMismatch, match=r"'second'.*'first'.*rebuild --model"):
        asked.load_matching(wrote("second"), tmp_path)
    assert loaded == ["first", "second", "first"]


def test_a_model_that_was_given_is_never_loaded(loaded: list[str], tmp_path: Path) -> None:
    model = LibraryModel(GIVEN, "set", "cpu")
    assert model.load(None) is model.load_matching(BY_GIVEN, tmp_path) is GIVEN
    with pytest.raises(ModelMismatch):
        model.load_matching(BY_MINE, tmp_path)
    assert model.query_bank(BY_GIVEN, "text") is None
    assert loaded == []


def test_the_query_bank_needs_no_model(loaded: list[str]) -> None:
    fingerprint = json.loads((PRETRAINED / "default" / "model.json").read_text())["fingerprint"]
    model = LibraryModel(None, "set", "cpu")
    bank = model.query_bank(Model(1, fingerprint, "default", 256), "text")
    assert bank is not None
    assert (bank.modality, bank.centres.shape[1]) == ("text", 256)
    assert model.query_bank(Model(1, "ab" * 32, "default", 256), "text") is None  # other weights wrote the library
    assert model.query_bank(Model(1, "ab" * 32, "gone", 256), "text") is None
    assert loaded == []
