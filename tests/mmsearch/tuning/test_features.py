"""Features of pairs by the trunks: each photo and caption its own row; what cannot be read is left out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmsearch.errors import DataError, DecodeError
from mmsearch.models.checkpoint import Architecture, build
from mmsearch.tuning import features as module
from mmsearch.tuning.features import read_features
from mmsearch.tuning.pairs import Pair

SHAPE = Architecture(kind="backbone", latent_dim=2, hidden_dim=4, image_features=1, text_features=1)


class Lengths:
    """A photo's feature is its number, a caption's its length."""

    def prepare(self, path: Path) -> np.ndarray:
        if "broken" in path.name:
            raise DecodeError(f"{path} cannot be read")
        return np.full((2, 2, 3), int(path.stem), np.uint8)

    def images(self, batch: np.ndarray) -> np.ndarray:
        return batch[:, 0, 0, :1].astype(np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(text)] for text in texts], np.float32)


def pair(name: str, *captions: str) -> Pair:
    return Pair(Path(name), name.encode(), captions)


def test_rows_are_those_of_the_readable_pairs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_trunks", lambda *_: Lengths())
    pairs = [pair(f"{n}.jpg", "x" * (n % 7 + 1), "y" * (n % 5 + 1)) for n in range(70)]
    pairs.insert(33, pair("broken.jpg", "nobody sees this"))
    with caplog.at_level(logging.WARNING):
        found = read_features(Path("model"), build(SHAPE), SHAPE, pairs, "cpu")
    assert "broken.jpg cannot be read; left out" in caplog.text
    assert [one.path.name for one in found.pairs] == [f"{n}.jpg" for n in range(70)]
    assert found.images[:, 0].tolist() == list(range(70))
    assert found.texts[:, 0].tolist() == [length for n in range(70) for length in (n % 7 + 1, n % 5 + 1)]
    assert found.owner.tolist() == [n for n in range(70) for _ in range(2)]


def test_nothing_readable_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_trunks", lambda *_: Lengths())
    with pytest.raises(DataError, match="none of the 1 photos with captions can be read; run 'mmsearch index' again"):
        read_features(Path("model"), build(SHAPE), SHAPE, [pair("broken.jpg", "a dog")], "cpu")
