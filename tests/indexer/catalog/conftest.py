"""An empty catalog, one root, a model, and a transaction that a test writes in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from indexer.base.types import Modality, Model
from indexer.catalog import assets, library, root_updates
from indexer.catalog.assets import Description, FileState
from indexer.catalog.database import Catalog
from indexer.catalog.roots import Root
from tests.fakes import FakeEncoder

AddFile = Callable[..., int]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(f"sqlite:///{tmp_path}/catalog.sqlite", migrate_schema=True)
    yield opened
    opened.close()


@pytest.fixture
def connection(catalog: Catalog) -> Iterator[Connection]:
    with catalog.begin() as opened:
        yield opened


@pytest.fixture
def model(connection: Connection) -> Model:
    """The live model, of four dimensions."""
    return library.claim(connection, FakeEncoder(dim=4), Path("library"))


@pytest.fixture
def root(connection: Connection, tmp_path: Path) -> Root:
    return root_updates.add(connection, tmp_path / "photos")


@pytest.fixture
def add_file(connection: Connection, root: Root) -> AddFile:
    """Add a file that was read, or with `error` one that could not be; its id."""

    def add(
        rel_path: str, modality: Modality = "image", *, content: bytes | None = None, error: str | None = None
    ) -> int:
        content_hash = content if content is not None else os.fsencode(rel_path)
        state = FileState(rel_path, modality, 10, 20, content_hash, error)
        excerpt = f"words of {rel_path}" if modality == "text" else None
        return assets.insert(connection, root, state, Description(excerpt=excerpt))

    return add
