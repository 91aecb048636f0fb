"""A small model and features to tune it on, shared by the tests here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.models.checkpoint import Architecture, build
from mmsearch.models.vae import MultimodalVAE
from mmsearch.training.recipe import Objective
from mmsearch.tuning.fit import (
    Features,
    Settings,
    fit,
    set_heads,
)
from mmsearch.tuning.pairs import Pair

QUICK = Settings(epochs=10, steps=40, dropout=0.0, rate=3e-3, objective=Objective(eta=100.0))
WIDTH = 16


def features_of(count: int, seed: int, swapped: int = 0, noise: float = 0.3) -> Features:
    """Photos are points; captions name the same points, with the first `swapped` coordinates in reverse order."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, WIDTH))
    said = points.copy()
    said[:, :swapped] = points[:, :swapped][:, ::-1]
    said += noise * rng.normal(size=said.shape)
    pairs = tuple(Pair(Path(f"{n}"), hashlib.sha256(f"{seed} {n}".encode()).digest(), (f"{n}",)) for n in range(count))
    return Features(pairs, torch.from_numpy(np.float32(points)), torch.from_numpy(np.float32(said)))


@pytest.fixture(scope="module")
def vae() -> Iterator[MultimodalVAE]:
    """Heads that know what captions mean where no coordinate is swapped."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shape = Architecture(kind="backbone", latent_dim=16, hidden_dim=32, image_features=WIDTH, text_features=WIDTH)
    model = build(shape).eval()
    set_heads(model, fit(model, features_of(200, 1), 0.05, replace(QUICK, steps=200)))
    yield model
    torch.set_num_threads(threads)
