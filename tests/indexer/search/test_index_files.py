"""The index file is a cache: whatever happens to it, answers stay the same and nothing is lost."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from indexer.base.lock import writer_lock
from indexer.catalog.database import last_change
from indexer.catalog.schema import generations as table
from indexer.ingest import ingest as ingest_module
from indexer.search import index_files as generations
from indexer.search.index_files import open_index
from indexer.search.live_index import LiveIndex, from_catalog
from indexer.vectors import choose
from tests.fakes import COLOURS, FakeEncoder, paint
from tests.indexer.asking import Store


@pytest.fixture
def filled(store: Store, photos: Path, encoder: FakeEncoder) -> Store:
    for number, colour in enumerate(COLOURS):
        paint(photos / f"{colour}.png", colour, seed=number)
    (photos / "red.txt").write_text("a red wall")
    (photos / "note.txt").write_text("words alone")
    store.ingest(photos, encoder)
    return store


def answers(store: Store, encoder: FakeEncoder) -> list[tuple[str, float]]:
    query = FakeEncoder().embed_texts(["red"]).mu[0]
    return [
        (hit.path.name, hit.score)
        for within in (None, "image", "text")
        for hit in store.search(query, 50, fingerprint=encoder.fingerprint, within=within)
    ]


def reopened(store: Store) -> Store:
    return Store.open(store.path)


def files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.path / "vectors").iterdir())


def index_file(store: Store) -> Path:
    (path,) = (path for path in (store.path / "vectors").iterdir() if ".bad" not in path.name)
    return path


def test_one_file_is_kept(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    first = files(filled)
    assert len(first) == 1
    filled.ingest(photos, encoder)
    assert files(filled) == first  # nothing changed, nothing written
    paint(photos / "new.png", "red", seed=99)
    filled.ingest(photos, encoder)
    assert len(files(filled)) == 1
    assert files(filled) != first


def test_the_row_vouches_for_the_file(filled: Store) -> None:
    with filled._catalog.begin() as connection:
        row = connection.execute(select(table)).one()
        assert row.change == last_change(connection)
    assert row.size_bytes == index_file(filled).stat().st_size
    assert (row.count, row.dim, len(row.entries)) == (10, 16, 90)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "gone", "garbage"])
def test_a_bad_file_is_set_aside_and_made_again(filled: Store, encoder: FakeEncoder, damage: str) -> None:
    expected = answers(filled, encoder)
    path = index_file(filled)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-9])
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"x" * len(data) if damage == "garbage" else b"")
    with reopened(filled) as store:
        assert answers(store, encoder) == expected
        kept = [name for name in files(store) if ".bad-" in name]
        assert len(kept) == (0 if damage == "gone" else 1)
        assert index_file(store).name != path.name  # a new generation
    with reopened(filled) as store:
        assert answers(store, encoder) == expected


def test_a_reader_mends_nothing_while_somebody_writes(filled: Store, encoder: FakeEncoder) -> None:
    expected = answers(filled, encoder)
    path = index_file(filled)
    path.write_bytes(b"")
    with writer_lock(filled.path), reopened(filled) as store:
        assert answers(store, encoder) == expected
    assert path.exists()


def test_the_tail_of_changes_is_replayed(
    filled: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies before it writes the index: readers catch up from the catalog, and equal an index built anew."""
    with monkeypatch.context() as patch:
        patch.setattr(generations, "refresh", lambda *_: 0)
        (photos / "green.png").unlink()
        (photos / "note.txt").write_text("other words")
        (photos / "blue.txt").write_text("a blue wall")
        paint(photos / "new.png", "red", seed=50)
        filled.ingest(photos, encoder)
    with reopened(filled) as store:
        replayed = answers(store, encoder)
        model = store._catalog.model()
        assert model is not None
        live, sound = open_index(store._catalog, store.path / "vectors", model, "cpu")
        with store._catalog.begin() as connection:
            anew = from_catalog(connection, model, "cpu")
        assert sound
        same(live, anew)
        index_file(store).unlink()
    with reopened(filled) as store:
        assert answers(store, encoder) == replayed


def same(left: LiveIndex, right: LiveIndex) -> None:
    np.testing.assert_array_equal(left.ids, right.ids)
    np.testing.assert_array_equal(left.kinds, right.kinds)
    assert left.change == right.change
    for live in (left, right):
        rows = live.index.rows
        assert sorted(rows.ids[rows.alive]) == left.ids.tolist()
    queries = np.random.default_rng(0).standard_normal((5, left.model.dim)).astype(np.float32)
    for one, other in zip(left.index.search(queries, 20), right.index.search(queries, 20), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_open_reader_follows_a_writer(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    with reopened(filled) as reader:
        before = answers(reader, encoder)
        paint(photos / "new.png", "red", seed=50)
        filled.ingest(photos, encoder)
        after = answers(reader, encoder)
        assert len(after) == len(before) + 2
        assert after == answers(filled, encoder)


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="no FAISS package is installed")
def test_libraries_move_between_machines_with_and_without_faiss(
    filled: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answers(filled, encoder)
    with monkeypatch.context() as patch:
        patch.setattr(choose, "has_faiss", lambda: False)
        with reopened(filled) as store:
            assert answers(store, encoder) == expected
            assert store.status().backend == "numpy"
            assert "mmsearch[cpu]" in choose.HINT
            assert "mmsearch[gpu]" in choose.HINT
            paint(photos / "new.png", "red", seed=50)
            store.ingest(photos, encoder)
            grown = answers(store, encoder)
        with reopened(filled) as store:
            assert answers(store, encoder) == grown
    with reopened(filled) as store:
        assert answers(store, encoder) == grown
        (photos / "new.png").unlink()
        store.ingest(photos, encoder)
        assert answers(store, encoder) == expected


def test_a_long_run_writes_the_index_on_the_way(
    filled: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    real = generations.write
    monkeypatch.setattr(ingest_module, "FIRST_CHECKPOINT", 4)
    monkeypatch.setattr(generations, "write", lambda *args: (written.append(len(args[2].ids)), real(*args))[1])
    for number in range(10):
        paint(photos / f"new{number}.png", "red", seed=100 + number)
    filled.ingest(photos, encoder, batch_size=2)
    assert written == [14, 18, 20]
    assert len(answers(filled, encoder)) == 2 * 10 + len(COLOURS) * 2 + 1 + 2


def test_a_file_under_a_temporary_name_is_swept_up(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    (filled.path / "vectors" / "index-77.faiss.tmp").write_bytes(b"half")
    os.remove(photos / "red.png")
    filled.ingest(photos, encoder)
    assert len(files(filled)) == 1
