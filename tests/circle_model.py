"""A model on a circle, so that cosines and hubness are those of angles and can be worked out by hand.

In: names that say their angle in degrees. Out: posteriors in the plane, banks of one centre. Next: `training/`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.base.types import Modality, Posterior
from indexer.search.query_bank import QueryBank


def directions(*degrees: float) -> NDArray[np.float32]:
    """Unit vectors, float32 `[n, 2]`."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def one_centre(modality: Modality, degrees: float, length: float) -> QueryBank:
    """A bank whose hubness is `length * cos(angle to the centre)`, since a softmax over one query is that query."""
    return QueryBank(modality, np.float32(length) * directions(degrees), np.ones(1, np.float32), sharpness=20.0)


class Circle:
    """Photo `40.png` lies at 40 degrees, a text at the first number in it; `in_capitals` are others for some."""

    name, fingerprint = "circle", "f" * 64

    def __init__(self, *, in_capitals: dict[int, int] | None = None) -> None:
        self.in_capitals = in_capitals or {}

    def embed_images(self, images: Sequence[Path]) -> Posterior:
        return _posterior([int(image.stem) for image in images])

    def embed_texts(self, texts: list[str]) -> Posterior:
        return _posterior([self._angle(text) for text in texts])

    def _angle(self, text: str) -> int:
        found = re.search(r"\d+", text)
        assert found, text
        angle = int(found[0])
        return self.in_capitals.get(angle, angle) if text.isupper() else angle


class CircleWithBanks(Circle):
    """The same with a bank for some modalities, or for none; `asked_for` are those it was asked for."""

    def __init__(self, *banks: QueryBank, in_capitals: dict[int, int] | None = None) -> None:
        super().__init__(in_capitals=in_capitals)
        self.banks = {bank.modality: bank for bank in banks}
        self.asked_for: list[Modality] = []

    def query_bank(self, modality: Modality) -> QueryBank | None:
        self.asked_for.append(modality)
        return self.banks.get(modality)


def _posterior(degrees: list[int]) -> Posterior:
    mu = 3 * directions(*degrees)
    return Posterior(mu, np.zeros_like(mu))
