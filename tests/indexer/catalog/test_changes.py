"""Vectors by page: everything, what changed since, some ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import HIDDEN, Model
from indexer.catalog import changes
from indexer.catalog.schema import vectors
from tests.bench.synthetic import World, make_library
from tests.indexer.asking import Store

DIM = 8
WORLD = World.of(DIM, clusters=3)


@pytest.fixture
def library(tmp_path: Path) -> Store:
    make_library(tmp_path / "library", 30, texts=5, dim=DIM, model="made up", world=WORLD)
    return Store.open(tmp_path / "library")


def test_everything_and_what_changed_since(library: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "ROWS_AT_ONCE", 7)
    model = library._catalog.model()
    assert isinstance(model, Model)
    with library._catalog.begin() as connection:
        connection.execute(vectors.update().where(vectors.c.id.in_([3, 4])).values(change=9))
        connection.execute(vectors.update().where(vectors.c.id == 4).values(kind=HIDDEN, mu=None))
        pages = list(changes.everything(connection, model))
        assert [len(page.ids) for page in pages] == [7, 7, 7, 7, 1]
        ids = np.concatenate([page.ids for page in pages])
        assert ids.tolist() == [one for one in range(1, 31) if one != 4]
        means = np.concatenate([page.means for page in pages])
        assert means.shape == (29, DIM)
        (page,) = changes.since(connection, model, 8)
        assert (page.ids.tolist(), page.kinds.tolist()[1]) == ([3, 4], HIDDEN)
        np.testing.assert_array_equal(page.means, means[2:3])  # what is hidden has none
        assert (changes.count_since(connection, model.id, 8), changes.count_since(connection, model.id, 9)) == (2, 0)
