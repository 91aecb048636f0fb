"""A model folder on torch: the vectors of the network itself, and one line for a damaged folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.errors import CheckpointError
from mmsearch.inference.torch_model import TorchModel
from mmsearch.models.checkpoint import Architecture, build, load_vae, save_model
from mmsearch.models.tokens import tokenise, word_tokenizer

SCRATCH = Architecture(kind="scratch", vocabulary=4, latent_dim=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = word_tokenizer(["red", "blue"])
    return save_model(tmp_path / "model", build(SCRATCH), SCRATCH, name="small", tokenizer_json=tokenizer.to_str())


def test_the_vectors_are_those_of_the_network(folder: Path) -> None:
    model, vae = TorchModel.load("mine", folder, "cpu"), load_vae(folder)[0]
    assert (model.name, model.dim, model.side_px, model.device) == ("mine", 4, SCRATCH.side_px, "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (3, SCRATCH.side_px, SCRATCH.side_px, 3), np.uint8)
    with torch.inference_mode():
        image = vae.encoders["image"](torch.from_numpy(pixels).permute(0, 3, 1, 2))
        text = vae.encoders["text"](tokenise(word_tokenizer(["red", "blue"]), ["red", "red blue"], SCRATCH.max_tokens))
    for found, wanted in ((model.encode_images(pixels), image), (model.encode_texts(["red", "red blue"]), text)):
        np.testing.assert_allclose(found.mu, wanted.mu.numpy(), atol=1e-5)
        np.testing.assert_allclose(found.logvar, wanted.logvar.numpy(), atol=1e-5)
        assert found.mu.dtype == found.logvar.dtype == np.float32


def test_one_picture_has_the_vector_it_has_in_a_batch(folder: Path) -> None:
    model = TorchModel.load("mine", folder, "cpu")
    pixels = np.random.default_rng(1).integers(0, 256, (2, SCRATCH.side_px, SCRATCH.side_px, 3), np.uint8)
    np.testing.assert_allclose(model.embed_images([pixels[1]]).mu, model.encode_images(pixels).mu[1:], atol=1e-5)


def test_a_model_without_a_bank_has_none(folder: Path) -> None:
    model = TorchModel.load("mine", folder, "cpu")
    assert model.query_bank("image") is None
    assert model.query_bank("text") is None


def test_a_folder_without_its_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read .*; copy the model again$"):
        TorchModel.load("mine", folder, "cpu")
