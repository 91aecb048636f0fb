"""A sentence-transformers model behind the indexer's `Encoder`: its own space, heads on it, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from indexer.base.types import Encoder, Posterior
from mmsearch.errors import CheckpointError, ModelError
from mmsearch.inference.backbone import Backbone
from mmsearch.inference.backbone_model import (
    SentenceTransformerModel,
    load_backbone,
    load_trained_backbone,
    save_linear_heads,
)
from mmsearch.inference.closed_form import fit_heads
from tests.tiny_clip import FEATURES, SIDE_PX, write_tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def model(clip: Path) -> SentenceTransformerModel:
    return load_backbone(str(clip))


def pictures(n: int, seed: int = 0) -> list[Image.Image]:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, SIDE_PX, SIDE_PX, 3), np.uint8)
    return [Image.fromarray(one) for one in pixels]


def words(n: int) -> list[str]:
    rng = np.random.default_rng(7)
    return ["".join(rng.choice(list("abcdefgh "), 12)).strip() for _ in range(n)]


def clip_itself(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features of two pictures and two texts straight from transformers, unit-normalised."""
    from transformers import CLIPModel, CLIPProcessor

    clip, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        inputs = processor(images=pictures(2), text=["a dog", "two"], return_tensors="pt", padding=True)
        out = clip.eval()(**inputs)
    return out.image_embeds.numpy(), out.text_embeds.numpy()


def test_is_an_encoder_and_keeps_the_contract(model: SentenceTransformerModel) -> None:
    encoder: Encoder = model
    assert (encoder.dim, encoder.side_px) == (FEATURES, SIDE_PX)
    for posterior in (model.embed_images(pictures(3)), model.embed_texts(["a", "b c", "d"])):
        assert posterior.mu.shape == posterior.logvar.shape == (3, FEATURES)
        assert posterior.mu.dtype == posterior.logvar.dtype == np.float32
        assert (posterior.logvar < 0).all()
    assert model.embed_texts([]).mu.shape == (0, FEATURES)
    assert model.embed_images([]).mu.shape == (0, FEATURES)


def test_directions_are_those_of_the_model_itself(clip: Path, model: SentenceTransformerModel) -> None:
    images, texts = clip_itself(clip)
    for found, own in ((model.embed_images(pictures(2)), images), (model.embed_texts(["a dog", "two"]), texts)):
        np.testing.assert_allclose((unit(found.mu) * unit(own)).sum(1), 1, atol=1e-5)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_row_does_not_depend_on_its_neighbours(model: SentenceTransformerModel) -> None:
    texts = ["a", "a much longer text of many words", "bb"]
    together = model.embed_texts(texts).mu
    alone = np.concatenate([model.embed_texts([text]).mu for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_picture_is_cut_to_its_middle(model: SentenceTransformerModel) -> None:
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste((0, 0, 255), (100, 0, 200, 100))
    square = model.prepare_image(wide)
    assert square.shape == (SIDE_PX, SIDE_PX, 3)
    assert square.dtype == np.uint8
    assert (square[:, 2:-2] == (0, 0, 255)).all()
    grey = model.prepare_image(Image.new("L", (40, 90), 128))
    assert (grey == 128).all()


def test_text_longer_than_the_model_reads_is_cut(model: SentenceTransformerModel) -> None:
    long = "abcdefgh " * 200
    assert np.isfinite(model.embed_texts([long]).mu).all()


def test_words_that_look_like_a_picture_are_words(model: SentenceTransformerModel, tmp_path: Path) -> None:
    pictures(1)[0].save(tmp_path / "a.png")
    name = str(tmp_path / "a.png")
    as_words, as_picture = model.embed_texts([name]).mu, model.embed_images([name]).mu
    assert np.abs(as_words - as_picture).max() > 0.01
    assert np.isfinite(model.embed_texts(["https://example.org/cat.jpg"]).mu).all()


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
    heads = fit_heads(features(model, "image"), features(model, "text"), 4)
    assert SentenceTransformerModel.load(str(clip), heads).fingerprint != model.fingerprint
    assert len(model.fingerprint) == 64


def features(model: SentenceTransformerModel, modality: str) -> np.ndarray:
    found: Posterior = model.embed_images(pictures(32)) if modality == "image" else model.embed_texts(words(32))
    return unit(found.mu)


def test_closed_form_heads_travel_in_a_folder(clip: Path, model: SentenceTransformerModel, tmp_path: Path) -> None:
    heads = fit_heads(features(model, "image"), features(model, "text"), 4)
    folder = save_linear_heads(tmp_path / "heads", model.backbone, heads)
    again = load_trained_backbone(folder)
    assert (again.dim, again.name) == (4, str(folder))
    expected = heads.posterior(features(model, "image"), "image")
    found = again.embed_images(pictures(32))
    np.testing.assert_allclose(found.mu, expected.mu, atol=1e-4)
    np.testing.assert_allclose(found.logvar, expected.logvar, atol=1e-6)
    assert again.fingerprint == load_trained_backbone(folder).fingerprint != model.fingerprint


def test_heads_of_other_weights_are_refused(clip: Path, model: SentenceTransformerModel, tmp_path: Path) -> None:
    moving = write_tiny_clip(tmp_path / "clip")
    heads = fit_heads(features(model, "image"), features(model, "text"), 4)
    folder = save_linear_heads(tmp_path / "heads", Backbone.load(str(moving)), heads)
    write_tiny_clip(moving, seed=1)
    with pytest.raises(CheckpointError, match=r"were made on .*make them again") as caught:
        load_trained_backbone(folder)
    assert "\n" not in str(caught.value)


def test_truncated_heads_are_refused(model: SentenceTransformerModel, tmp_path: Path) -> None:
    heads = fit_heads(features(model, "image"), features(model, "text"), 4)
    folder = save_linear_heads(tmp_path / "heads", model.backbone, heads)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_trained_backbone(folder)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder") as caught:
        load_backbone(str(tmp_path / "nothing" / "here"))
    assert "\n" not in str(caught.value)


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_name_unknown_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    class Nowhere:
        def head(self, url: str, timeout: float) -> None:
            raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "get_session", Nowhere)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"is not on this machine and .* cannot be reached") as caught:
        load_backbone("clip-of-nobody")
    assert "\n" not in str(caught.value)


def test_model_of_texts_alone(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words_only = StaticEmbedding(Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, "[UNK]")), embedding_dim=8)
    SentenceTransformer(modules=[words_only], device="cpu").save(str(tmp_path))
    with pytest.raises(ModelError, match="embeds text; expected image and text"):
        load_backbone(str(tmp_path))
