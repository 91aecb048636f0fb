"""The same question gives the same rows over sqlite3 and over SQLAlchemy."""

from __future__ import annotations

from indexer.catalog import reader
from indexer.catalog.reader import CatalogReader, last_change, live_model, read
from indexer.search.search import CATALOG_FILE
from indexer.store import Store


def test_both_kinds_of_connection_read_alike(filled: Store) -> None:
    own = CatalogReader.open(filled.path / CATALOG_FILE)
    assert own is not None
    query = "SELECT id, asset_id, kind, mu FROM vectors WHERE kind <> :hidden ORDER BY id"
    with own.begin() as left, filled._catalog.begin() as right:
        assert read(left, query, hidden=0) == read(right, query, hidden=0)
        assert live_model(left) == live_model(right)
        assert last_change(left) == last_change(right) > 0
        assert [len(page) for page in reader.pages(left, query, 4, hidden=0)] == [4, 4, 1]
        assert [len(page) for page in reader.pages(right, query, 4, hidden=0)] == [4, 4, 1]
    own.close()
