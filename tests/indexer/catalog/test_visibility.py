"""The kind of each vector follows from states, captions and fusions."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select, update

from indexer.catalog.schema import vectors
from indexer.store import Store
from tests.fakes import FakeEncoder, paint


def test_kinds_follow_from_the_rest(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    """`kind` is derived: computed again from nothing, it comes out the same."""
    from indexer.catalog.visibility import refresh

    paint(photos / "a.jpg", "red")
    (photos / "a.txt").write_text("blue")
    (photos / "b.txt").write_text("green")
    (photos / "captions.csv").write_text("image,caption\na.jpg,one\n")
    store.ingest(photos, encoder)
    (photos / "captions.csv").write_text("image,caption\na.jpg,two\n")
    store.ingest(photos, encoder)
    model = store._catalog.model()
    assert model is not None
    with store._catalog.begin() as connection:
        query = select(vectors.c.id, vectors.c.kind).order_by(vectors.c.id)
        kinds = connection.execute(query).all()
        connection.execute(update(vectors).values(kind=7))
        refresh(connection)
        assert connection.execute(query).all() == kinds
    assert sorted(kind for _, kind in kinds) == [0, 0, 1, 2, 3, 3]
