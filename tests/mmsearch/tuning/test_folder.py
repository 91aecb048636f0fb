"""The folder of a tuned model: graphs that follow the weights, a bank that is kept, a trunk not rounded twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.data.scenes import render_scene
from mmsearch.inference.load_model import PRETRAINED, load_model
from mmsearch.inference.onnx_model import OnnxModel
from mmsearch.inference.torch_model import TorchModel
from mmsearch.models.checkpoint import load_vae, load_weights
from mmsearch.models.digest import read_description
from mmsearch.tuning import folder as tune_folder
from mmsearch.tuning.fit import (
    heads_of,
    set_heads,
)

SHIPPED = PRETRAINED / "default"


@pytest.mark.skipif(not (SHIPPED / "model.json").exists(), reason="this checkout holds no default model")
def test_a_tuned_default_model_needs_no_torch_to_search(tmp_path: Path) -> None:
    vae, architecture = load_vae(SHIPPED)
    described = read_description(SHIPPED)
    torch.manual_seed(0)
    old = heads_of(vae)
    moved = {
        name: value + 0.2 * value.std() * torch.randn_like(value) for name, value in old.items() if value.numel() > 1
    }
    set_heads(vae, tune_folder.as_stored(moved, described))
    folder = tmp_path / "tuned"
    tune_folder.write(folder, vae, architecture, SHIPPED, described, {"key": "k"})
    assert read_description(folder)["tuned"] == {"key": "k"}
    graphs = [(folder / name).read_bytes() == (SHIPPED / name).read_bytes() for name in ("image.onnx", "text.onnx")]
    assert graphs == [True, True]
    tuned, torch_model, default = (
        load_model(folder, "cpu"),
        TorchModel.load("", folder, "cpu"),
        load_model("default", "cpu"),
    )
    assert isinstance(tuned, OnnxModel)
    assert tuned.fingerprint != default.fingerprint
    texts, pictures = ["a dog", "rex on the beach"], [render_scene(1, side_px=100)[0]]
    for ours, theirs, before in (
        (tuned.embed_texts(texts), torch_model.embed_texts(texts), default.embed_texts(texts)),
        (tuned.embed_images(pictures), torch_model.embed_images(pictures), default.embed_images(pictures)),
    ):
        np.testing.assert_allclose(ours.mu, theirs.mu, atol=1e-2)
        assert np.abs(ours.mu - before.mu).max() > 0.1
    for modality in ("text", "image"):
        bank, shipped = tuned.query_bank(modality), default.query_bank(modality)
        assert bank is not None
        np.testing.assert_array_equal(bank.centres, shipped.centres)
    # a frozen trunk is not rounded a second time
    first, second = (load_weights(where, read_description(where)) for where in (SHIPPED, folder))
    trunk = [name for name in first if ".head." not in name and not name.startswith("decoders.")]
    assert all(torch.equal(first[name], second[name]) for name in trunk if first[name].dtype == torch.int8)
