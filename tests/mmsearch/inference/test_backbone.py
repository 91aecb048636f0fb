"""A sentence-transformers model behind the indexer's `Encoder`: its own space, heads on it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmsearch.errors import ModelError, ModelNotFound
from mmsearch.inference.backbone_model import (
    SentenceTransformerModel,
    load_backbone,
)
from mmsearch.inference.hub import download
from tests.tiny_clip import SIDE_PX, pictures


def clip_itself(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features of two pictures and two texts straight from transformers, unit-normalised."""
    from transformers import CLIPModel, CLIPProcessor

    clip, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        inputs = processor(images=pictures(2), text=["a dog", "two"], return_tensors="pt", padding=True)
        out = clip.eval()(**inputs)
    return out.image_embeds.numpy(), out.text_embeds.numpy()


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
    with pytest.raises(ModelNotFound, match=r"is not on this machine; run 'mmsearch download") as caught:
        load_backbone("clip-of-nobody")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"is not on this machine and .* cannot be reached") as caught:
        download("clip-of-nobody")
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
