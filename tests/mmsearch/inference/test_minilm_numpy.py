"""The text encoder in numpy says what ONNX Runtime and torch say, and is left when there is much to say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mmsearch.errors import CheckpointError
from mmsearch.inference import onnx_model
from mmsearch.inference.load_model import PRETRAINED, load_model
from mmsearch.inference.minilm_numpy import NumpyTextEncoder, _gelu

DEFAULT = PRETRAINED / "default"
TEXTS = ["a dog running on the beach", "cat", "?", "", "a man on a bicycle in the rain at night " * 12, "ünïcode 漢字"]
pytestmark = pytest.mark.skipif(not (DEFAULT / "model.json").exists(), reason="this checkout holds no default model")


def test_it_equals_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "MAX_TEXTS_IN_NUMPY", 100)
    numpy_model = load_model("default", "cpu")
    own = numpy_model.encode_texts(TEXTS)
    assert not numpy_model._sessions
    monkeypatch.setattr(onnx_model, "MAX_TEXTS_IN_NUMPY", -1)
    graph = load_model("default", "cpu").encode_texts(TEXTS)
    assert own.mu.dtype == own.logvar.dtype == np.float32
    np.testing.assert_allclose(own.mu, graph.mu, atol=2e-5)
    np.testing.assert_allclose(own.logvar, graph.logvar, atol=2e-5)


def test_padding_changes_nothing() -> None:
    encode = NumpyTextEncoder(DEFAULT / "model.safetensors").encode
    short = np.array([[5, 9, 30, 7]])
    padded = np.array([[5, 9, 30, 7, 0, 0, 0], [5, 9, 30, 7, 8, 8, 8]])
    np.testing.assert_allclose(encode(short).mu[0], encode(padded).mu[0], atol=1e-5)


def test_a_query_opens_no_session_and_many_texts_do() -> None:
    model = load_model("default", "cpu")
    alone = model.encode_texts(["a dog"])
    model.encode_texts(["two", "at once"])
    assert not model._sessions
    together = model.encode_texts(["a dog"] * 3)
    assert list(model._sessions) == ["text"]
    np.testing.assert_allclose(together.mu, np.repeat(alone.mu, 3, axis=0), atol=2e-5)
    np.testing.assert_array_equal(model.encode_texts(["a dog"]).mu, alone.mu)  # one text, one answer, for ever


def test_damaged_weights_are_refused_here_too(tmp_path: Path) -> None:
    folder = shutil.copytree(DEFAULT, tmp_path / "model")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(folder, "cpu").encode_texts(["red"])


def test_a_model_of_another_kind_is_left_to_its_graph() -> None:
    model = load_model("default", "cpu")
    model._described = {**model._described, "architecture": {**model._described["architecture"], "kind": "conv64"}}
    model.encode_texts(["red"])
    assert list(model._sessions) == ["text"]


def test_gelu_is_the_exact_one() -> None:
    torch = pytest.importorskip("torch")
    x = np.linspace(-9, 9, 4001, dtype=np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(_gelu(x), expected, atol=2e-6)
