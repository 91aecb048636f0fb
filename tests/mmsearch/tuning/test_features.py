"""Features of photos and captions: each with its pair, whatever the batches, and without what cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from indexer.base.errors import DecodeError
from mmsearch.errors import DataError
from mmsearch.tuning import features
from mmsearch.tuning.pairs import Pair


class Lengths:
    """A photo's feature is the number in its name, a caption's its length; a name without a number cannot be read."""

    def __init__(self) -> None:
        self.text_batches: list[list[str]] = []

    side_px = 2

    def prepare_image(self, image: Image.Image) -> NDArray[np.uint8]:
        return np.asarray(image)

    def images(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        return squares[:, 0, 0, :1].astype(np.float32)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.text_batches.append(list(texts))
        return np.array([[len(text)] for text in texts], np.float32)


def grey_of_its_number(path: Path, side_px: int) -> Image.Image:
    if not path.stem.isdigit():
        raise DecodeError(f"{path} cannot be read")
    return Image.new("RGB", (side_px, side_px), (int(path.stem),) * 3)


@pytest.fixture
def trunks(monkeypatch: pytest.MonkeyPatch) -> Lengths:
    made = Lengths()
    monkeypatch.setattr(features, "_trunks", lambda *_: made)
    monkeypatch.setattr(features, "to_image", grey_of_its_number)
    monkeypatch.setattr(features, "_BATCH", 3)
    return made


def read(pairs: list[Pair]) -> features.Features:
    return features.read_features(Path("model"), cast(Any, None), cast(Any, None), pairs, "cpu")


def pair(name: str, *captions: str) -> Pair:
    return Pair(Path(f"{name}.png"), name.encode(), captions)


def test_features_stay_with_their_pairs(trunks: Lengths) -> None:
    pairs = [pair(str(number), "x" * (7 * number % 5 + 1), "y" * (number + 1)) for number in range(8)]
    found = read(pairs)
    assert found.pairs == tuple(pairs)
    assert found.images[:, 0].tolist() == list(range(8))
    assert found.texts[:, 0].tolist() == [len(caption) for one in pairs for caption in one.captions]
    lengths = [len(text) for batch in trunks.text_batches for text in batch]
    assert lengths == sorted(lengths), "like lengths share a batch"
    assert max(map(len, trunks.text_batches)) <= 3


def test_photos_that_cannot_be_read_are_named_and_left_out(trunks: Lengths, caplog: pytest.LogCaptureFixture) -> None:
    pairs = [
        pair("1", "one"),
        pair("broken", "no"),
        *(pair(f"bad{number}", "no") for number in range(3)),
        pair("7", "six"),
    ]
    with caplog.at_level(logging.WARNING):
        found = read(pairs)
    assert found.pairs == (pairs[0], pairs[-1])
    assert found.images[:, 0].tolist() == [1, 7]
    assert found.texts[:, 0].tolist() == [3, 3]
    assert caplog.text.count("cannot be read; left out") == 4


def test_where_none_can_be_read_it_is_one_line(trunks: Lengths) -> None:
    with pytest.raises(
        DataError, match=r"^none of the 1 photos with captions can be read; run 'mmsearch index' again$"
    ):
        read([pair("broken", "no")])
