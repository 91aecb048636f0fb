"""The rows of index files: what is put is read again; what an earlier version wrote is known as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import IndexFacts, Model
from indexer.catalog.index_files import IndexFiles, StoredFile, newest, next_generation, put, stored_files
from indexer.catalog.reader import CatalogReader
from indexer.catalog.schema import generations, models
from indexer.search.search import CATALOG_FILE
from indexer.store import Store

MODEL = Model(1, "print", "name", 4)
ENTRIES = np.array([3, 9], "<i8").tobytes() + bytes([0, 1])
FACTS = IndexFacts("ivf", 100, 7, 50, 20_000, 0.96, 0.95, 400)
ROWS, OF_FAISS = StoredFile("index-1.f16", "a" * 64, 16), StoredFile("index-1.faiss", "b" * 64, 99)


@pytest.fixture
def library(store: Store) -> Store:
    with store._catalog.begin() as connection:
        connection.execute(models.insert().values(id=1, fingerprint="print", name="name", dim=4))
    return store


@pytest.mark.parametrize("faiss", [None, OF_FAISS])
def test_what_is_put_is_read_by_either_connection(library: Store, faiss: StoredFile | None) -> None:
    with library._catalog.begin() as connection:
        assert newest(connection, MODEL) is None
        assert (next_generation(connection), next_generation(connection)) == (1, 2)
        put(connection, IndexFiles(1, 1, 2, 4, 5, ROWS, faiss, FACTS, ENTRIES))
        put(connection, IndexFiles(2, 1, 2, 4, 6, ROWS, faiss, FACTS, ENTRIES))
    reader = CatalogReader.open(library.path / CATALOG_FILE)
    assert reader is not None
    for catalog in (library._catalog, reader):
        with catalog.begin() as snapshot:  # type: ignore[attr-defined]
            files = newest(snapshot, MODEL)
            assert files is not None
            assert (files.generation, files.change, files.rows, files.faiss, files.facts) == (2, 6, ROWS, faiss, FACTS)
            assert (files.ids.tolist(), files.kinds.tolist()) == ([3, 9], [0, 1])
            assert files.files == tuple(stored_files(snapshot)) == (ROWS, *([faiss] if faiss else []))
            assert newest(snapshot, Model(2, "", "", 4)) is None
    reader.close()


@pytest.mark.parametrize("facts", ["{}", "", "[]", '{"form": "of a later version", "faiss": null, "more": 1}'])
def test_a_row_without_facts_is_of_another_version(library: Store, facts: str) -> None:
    with library._catalog.begin() as connection:
        put(connection, IndexFiles(1, 1, 2, 4, 5, ROWS, None, FACTS, ENTRIES))
        connection.execute(generations.update().values(facts=facts))
        files = newest(connection, MODEL)
        assert files is not None
        assert files.facts is None
        assert stored_files(connection) == [ROWS]


def test_entries_of_another_number(library: Store, tmp_path: Path) -> None:
    with pytest.raises(LibraryCorrupt, match="2 ids for 3 vectors"):
        _ = IndexFiles(1, 1, 3, 4, 5, ROWS, None, FACTS, ENTRIES).ids
