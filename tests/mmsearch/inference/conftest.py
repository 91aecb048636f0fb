"""A tiny CLIP with random weights, and the bare model of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsearch.inference.backbone_model import SentenceTransformerModel, load_backbone
from tests.tiny_clip import write_tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def model(clip: Path) -> SentenceTransformerModel:
    return load_backbone(str(clip))
