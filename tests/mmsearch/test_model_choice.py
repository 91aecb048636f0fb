"""Which model is meant, in every combination of what was asked for, what wrote the library and what is configured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.base.personal import remember, remembered
from indexer.base.types import Encoder, Model
from mmsearch import ModelMismatch, ModelNotFound, ModelNotNamed, model_choice
from mmsearch.inference.known_models import full_name
from mmsearch.inference.load_model import PRETRAINED
from mmsearch.model_choice import Choice, LibraryModel, resolve
from mmsearch.models.digest import fingerprint
from tests.fakes import FakeEncoder

GIVEN, OTHER = FakeEncoder(name="given"), FakeEncoder(name="given", seed=1)
BY_GIVEN = Model(1, GIVEN.fingerprint, "given", GIVEN.dim)
BY_MINE = Model(1, "ab" * 32, "mine", 16)


KNOWN = {"ab" * 32: "mine", "cd" * 32: "default"}
BY_STRANGER = Model(1, "ef" * 32, "mine", 16)  # the label of a model that is here, on the vectors of another


@pytest.mark.parametrize(
    ("requested", "stored", "configured", "expected"),
    [
        (None, None, "set", Choice("set", "configured", False)),
        (None, BY_MINE, "set", Choice("mine", "stored", True)),
        (None, BY_MINE, "mine", Choice("mine", "stored", True)),
        (None, replace(BY_MINE, name="/theirs"), "set", Choice("mine", "stored", True)),  # whatever its label says
        (None, BY_STRANGER, "set", Choice("set", "configured", False)),  # it may be this one: loading it tells
        ("mine", None, "set", Choice("mine", "requested", False)),
        ("mine", BY_MINE, "set", Choice("mine", "requested", True)),
        ("mine", BY_STRANGER, "set", Choice("mine", "requested", False)),
        ("other", BY_MINE, "other", Choice("other", "requested", False)),
        (GIVEN, None, "set", Choice(GIVEN, "requested", False)),
        (GIVEN, BY_GIVEN, "set", Choice(GIVEN, "requested", True)),
        (OTHER, BY_GIVEN, "given", Choice(OTHER, "requested", False)),  # of the same name, with other weights
        (GIVEN, BY_MINE, "set", Choice(GIVEN, "requested", False)),
    ],
)
def test_resolve(requested: str | Encoder | None, stored: Model | None, configured: str, expected: Choice) -> None:
    assert resolve(requested, stored, configured, KNOWN) == expected


@pytest.mark.parametrize("configured", ["default", "mine"])
def test_a_model_that_only_the_library_names_is_one_line(configured: str) -> None:
    stranger = replace(BY_STRANGER, name="/tmp/evil\x1b[2J\nname" + "x" * 5000)
    with pytest.raises(ModelNotNamed, match=r"called '/tmp/evil.*efefefefefef\b.*--model.*config\.toml") as told:
        resolve(None, stranger, configured, KNOWN)
    assert "\n" not in str(told.value)
    assert "\x1b" not in str(told.value)
    assert len(str(told.value)) < 500


def test_a_label_is_never_loaded_and_a_model_once_named_is_found_by_its_fingerprint(
    loaded: list[str], tmp_path: Path
) -> None:
    theirs = replace(wrote("mine"), name=str(tmp_path / "evil"))
    with pytest.raises(ModelNotNamed):
        LibraryModel(None, "default", "cpu").load(theirs)
    with pytest.raises(ModelNotNamed):
        LibraryModel(None, "default", "cpu").query_bank(theirs, "text")
    assert loaded == []
    LibraryModel("mine", "default", "cpu").load(theirs)
    assert LibraryModel(None, "default", "cpu").load_matching(theirs, tmp_path).name == "mine"
    assert loaded == ["mine", "mine"]


def test_the_configured_model_is_one_that_the_user_named(loaded: list[str], tmp_path: Path) -> None:
    assert LibraryModel(None, "set", "cpu").load(wrote("set")).name == "set"
    with pytest.raises(ModelNotNamed):
        LibraryModel(None, "other one", "cpu").load(wrote("set up"))
    assert remembered("models")[wrote("set").fingerprint] == "set"


def test_a_folder_says_by_itself_which_model_it_holds(tmp_path: Path) -> None:
    shutil.copytree(PRETRAINED / "default", tmp_path / "mine")
    path = tmp_path / "mine" / "model.json"
    described = json.loads(path.read_text())
    described["weights_sha256"] = "12" * 32
    described["fingerprint"] = fingerprint(described)
    path.write_text(json.dumps(described))
    stored = Model(1, described["fingerprint"], "theirs", 256)
    model = LibraryModel(None, str(tmp_path / "mine"), "cpu")
    assert model.choose(stored) == Choice(str(tmp_path / "mine"), "stored", True)
    remember("models", "12" * 32, str(tmp_path / "mine"))
    with pytest.raises(ModelMismatch, match=r"holds other weights now .*rebuild --model"):
        LibraryModel(None, "default", "cpu").load(Model(1, "12" * 32, "theirs", 256))


def test_only_what_is_named_now_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def load(name: str, device: str) -> FakeEncoder:
        if name not in fetched:
            raise ModelNotFound("not here")
        return FakeEncoder(name=name)

    monkeypatch.setattr(model_choice, "load_encoder", load)
    monkeypatch.setattr("mmsearch.inference.hub.download", fetched.append)
    for model, may in ((LibraryModel("clip", "default", "cpu"), False), (LibraryModel(None, "clip", "cpu"), True)):
        with pytest.raises(ModelNotFound):
            model.load(None, may_download=may)
    assert fetched == []
    LibraryModel("clip", "default", "cpu").load(None, may_download=True)
    assert fetched == ["clip"]


def test_a_name_that_is_a_path_holds_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "default").mkdir()
    monkeypatch.chdir(tmp_path)
    assert full_name("mine") == str(tmp_path / "mine")
    assert full_name("default") == "default"  # the model that ships, whatever lies here
    assert full_name("clip-ViT-B-32") == "clip-ViT-B-32"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered in one test is not known in the next."""
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))


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
    for name in ("first", "second"):
        remember("models", wrote(name).fingerprint, name)
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
    shipped = json.loads((PRETRAINED / "default" / "model.json").read_text())["fingerprint"]
    model = LibraryModel(None, "default", "cpu")
    bank = model.query_bank(Model(1, shipped, "default", 256), "text")
    assert bank is not None
    assert (bank.modality, bank.centres.shape[1]) == ("text", 256)
    remember("models", "ab" * 32, str(PRETRAINED / "default"))
    remember("models", "cd" * 32, str(PRETRAINED / "gone"))
    assert model.query_bank(Model(1, "ab" * 32, "default", 256), "text") is None  # other weights wrote the library
    assert model.query_bank(Model(1, "cd" * 32, "gone", 256), "text") is None
    assert loaded == []
