"""What a model folder from elsewhere may cost: one line, seconds, and no memory of this process."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.base.personal import remembered
from indexer.base.worker import Message
from mmsearch.errors import CheckpointError
from mmsearch.inference import trial
from mmsearch.inference.load_model import load_model
from mmsearch.models.files import SHIPPED
from tests.mmsearch.inference.hostile import HOSTILE, copy_of_the_default_model, endless_graph

IN_PROCESS: Callable[[Message], Message] = trial.in_process  # as it is before a fixture puts a stand-in there

pytestmark = pytest.mark.skipif(not (SHIPPED / "model.json").exists(), reason="this checkout holds no default model")


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trial, "in_process", IN_PROCESS)
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("change", HOSTILE)
def test_a_hostile_folder_is_one_line(change: str, tmp_path: Path) -> None:
    folder = copy_of_the_default_model(tmp_path / "model")
    HOSTILE[change](folder)
    used, children = (resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    with pytest.raises(CheckpointError) as told:
        load_model(folder, "cpu")
    message = str(told.value)
    assert "\n" not in message
    assert len(message) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - used < 5
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - children < 12
    assert remembered("models") == remembered("trials") == {}


def test_a_good_folder_is_tried_once_and_again_where_it_changed(tmp_path: Path) -> None:
    folder = copy_of_the_default_model(tmp_path / "model")
    model = load_model(folder, "cpu")
    assert remembered("models") == {}  # of the fingerprint of the default model, which every user has
    assert len(remembered("trials")) == 1
    tried = time.perf_counter()
    assert load_model(folder, "cpu").fingerprint == model.fingerprint
    assert time.perf_counter() - tried < 1
    endless_graph(folder)  # the fingerprint stays, since it is over weights and sizes
    with pytest.raises(CheckpointError, match="in a process of its own"):
        load_model(folder, "cpu")


def test_the_default_model_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(request: Message) -> Message:
        raise AssertionError(request)

    monkeypatch.setattr(trial, "in_process", never)
    assert load_model("default", "cpu").dim == 256


def test_a_bare_backbone_is_tried_too(tmp_path: Path) -> None:
    from tests.tiny_clip import FEATURES, write_tiny_clip

    assert load_model(write_tiny_clip(tmp_path / "clip"), "cpu").dim == FEATURES
    assert list(remembered("trials").values()) == [str(tmp_path / "clip")]
    assert set(remembered("models").values()) == {str(tmp_path / "clip")}
