"""A name becomes a model, or one line that says what to do; the device is checked before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mmsearch.errors import CheckpointError, ModelError
from mmsearch.inference import load_model as module
from mmsearch.inference.load_model import PRETRAINED, load_model, load_query_bank, torch_device
from mmsearch.inference.onnx_model import OnnxModel
from mmsearch.inference.torch_model import TorchModel

DEFAULT = PRETRAINED / "default"
needs_model = pytest.mark.skipif(not (DEFAULT / "model.json").exists(), reason="this checkout holds no default model")


@needs_model
def test_the_default_model_runs_on_onnx_and_opens_nothing_yet() -> None:
    model = load_model("default", "cpu")
    assert isinstance(model, OnnxModel)
    assert (model.name, model.dim, len(model.fingerprint)) == ("default", 256, 64)
    assert not model._sessions


@needs_model
def test_a_folder_without_graphs_runs_on_torch(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("model.json", "model.safetensors", "tokenizer.json", "queries.safetensors"):
        shutil.copy(DEFAULT / name, folder / name)
    model = load_model(folder, "cpu")
    assert isinstance(model, TorchModel)
    assert (model.name, model.fingerprint) == (str(folder), load_model("default", "cpu").fingerprint)


def test_what_is_no_model_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="choose auto, cpu or cuda"):
        load_model("default", "tpu")
    with pytest.raises(CheckpointError, match=r"model\.json is missing"):
        load_model(tmp_path)
    for text in ("{", '{"architecture": {}}', "[]"):
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(CheckpointError, match="cannot be read as a model") as told:
            load_model(tmp_path)
        assert "\n" not in str(told.value)


def test_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cuda_works", lambda: False)
    monkeypatch.setattr(module, "_has_gpu", lambda: False)
    assert (torch_device("cpu"), torch_device("auto")) == ("cpu", "cpu")
    with pytest.raises(ModelError, match="no GPU that torch can use"):
        torch_device("cuda")
    monkeypatch.setattr(module, "_cuda_works", lambda: True)
    monkeypatch.setattr(module, "_has_gpu", lambda: True)
    assert (torch_device("cpu"), torch_device("auto"), torch_device("cuda")) == ("cpu", "cuda", "cuda")


@needs_model
def test_a_query_bank_without_its_model(tmp_path: Path) -> None:
    fingerprint = json.loads((DEFAULT / "model.json").read_text())["fingerprint"]
    bank = load_query_bank("default", fingerprint, "text")
    assert bank is not None
    assert bank.modality == "text"
    assert load_query_bank("default", "ab" * 32, "text") is None
    assert load_query_bank(tmp_path / "gone", fingerprint, "text") is None
    shutil.copytree(DEFAULT, tmp_path / "mine")
    (tmp_path / "mine" / "queries.safetensors").write_bytes(b"damaged")
    assert load_query_bank(tmp_path / "mine", fingerprint, "text") is None  # then scores are cosines
