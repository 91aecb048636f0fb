"""Heads on a frozen backbone: the contract of an encoder, and folders of heads, refused where they do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import Encoder, Posterior
from mmsearch.errors import CheckpointError
from mmsearch.inference.backbone import Backbone
from mmsearch.inference.backbone_model import (
    SentenceTransformerModel,
    load_backbone,
    save_linear_heads,
)
from mmsearch.inference.closed_form import fit_heads
from mmsearch.inference.load_model import load_model
from tests.tiny_clip import FEATURES, SIDE_PX, pictures, words, write_tiny_clip


def test_is_an_encoder_and_keeps_the_contract(model: SentenceTransformerModel) -> None:
    encoder: Encoder = model
    assert (encoder.dim, encoder.side_px) == (FEATURES, SIDE_PX)
    for posterior in (model.embed_images(pictures(3)), model.embed_texts(["a", "b c", "d"])):
        assert posterior.mu.shape == posterior.logvar.shape == (3, FEATURES)
        assert posterior.mu.dtype == posterior.logvar.dtype == np.float32
        assert (posterior.logvar < 0).all()
    assert model.embed_texts([]).mu.shape == (0, FEATURES)
    assert model.embed_images([]).mu.shape == (0, FEATURES)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_fusion_lies_between(model: SentenceTransformerModel) -> None:
    image, text = model.embed_images(pictures(1)), model.embed_texts(["a dog"])
    fused = model.fuse([image, text])
    # variance 1/2 each: precision 2 + 2 - 1
    np.testing.assert_allclose(fused.mu, 2 * (image.mu + text.mu) / 3, rtol=1e-5)
    np.testing.assert_allclose(np.exp(fused.logvar), 1 / 3, rtol=1e-5)


def test_fingerprint_follows_weights_and_heads(clip: Path, model: SentenceTransformerModel, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip, copy)
    assert load_backbone(str(copy)).fingerprint == model.fingerprint
    other = load_backbone(str(write_tiny_clip(tmp_path / "other", seed=1)))
    assert other.fingerprint != model.fingerprint
    seen = {model.fingerprint}
    for dim in (3, 4):
        heads = fit_heads(features(model, "image"), features(model, "text"), dim)
        seen.add(load_model(save_linear_heads(tmp_path / str(dim), model.backbone, heads), "cpu").fingerprint)
    assert len(seen) == 3
    assert len(model.fingerprint) == 64


def features(model: SentenceTransformerModel, modality: str) -> np.ndarray:
    found: Posterior = model.embed_images(pictures(32)) if modality == "image" else model.embed_texts(words(32))
    return unit(found.mu)


def test_closed_form_heads_travel_in_a_folder(clip: Path, model: SentenceTransformerModel, tmp_path: Path) -> None:
    heads = fit_heads(features(model, "image"), features(model, "text"), 4)
    folder = save_linear_heads(tmp_path / "heads", model.backbone, heads)
    again = load_model(folder, "cpu")
    assert (again.dim, again.name) == (4, str(folder))
    expected = heads.posterior(features(model, "image"), "image")
    found = again.embed_images(pictures(32))
    np.testing.assert_allclose(found.mu, expected.mu, atol=1e-4)
    np.testing.assert_allclose(found.logvar, expected.logvar, atol=1e-6)
    assert again.fingerprint == load_model(folder, "cpu").fingerprint != model.fingerprint


def test_heads_of_other_weights_are_refused(clip: Path, model: SentenceTransformerModel, tmp_path: Path) -> None:
    moving = write_tiny_clip(tmp_path / "clip")
    heads = fit_heads(features(model, "image"), features(model, "text"), 4)
    folder = save_linear_heads(tmp_path / "heads", Backbone.load(str(moving)), heads)
    write_tiny_clip(moving, seed=1)
    with pytest.raises(CheckpointError, match=r"were made on .*make them again") as caught:
        load_model(folder, "cpu")
    assert "\n" not in str(caught.value)


def test_truncated_heads_are_refused(model: SentenceTransformerModel, tmp_path: Path) -> None:
    heads = fit_heads(features(model, "image"), features(model, "text"), 4)
    folder = save_linear_heads(tmp_path / "heads", model.backbone, heads)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_model(folder, "cpu")
