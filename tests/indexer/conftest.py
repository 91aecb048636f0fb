"""A library in a temporary folder, a folder of files, an encoder that counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import COLOURS, FakeEncoder, paint
from tests.indexer.asking import Store


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "library", create=True) as opened:
        yield opened


@pytest.fixture
def filled(store: Store, photos: Path, encoder: FakeEncoder) -> Store:
    """One picture of each colour, one of them with a caption."""
    for number, colour in enumerate(COLOURS):
        paint(photos / f"{colour}.png", colour, seed=number)
    (photos / "red.txt").write_text("a red wall")
    store.ingest(photos, encoder)
    return store
