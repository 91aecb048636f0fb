"""A library of pictures, texts and captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import FakeEncoder
from tests.indexer.crashing import ingest
from tests.indexer.folders import fill


@pytest.fixture
def library(tmp_path: Path, photos: Path) -> Path:
    fill(photos)
    ingest(tmp_path / "library", photos, FakeEncoder())
    return tmp_path / "library"
