"""Rows at half precision choose candidates: the answers stay those of a search of everything at full precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryCorrupt
from indexer.vectors import choose, half_index
from indexer.vectors.choose import load_index
from indexer.vectors.exact import ExactIndex
from indexer.vectors.file_index import FileIndex
from indexer.vectors.half_index import DOUBT, HalfIndex
from indexer.vectors.lists import Lists

pytest.importorskip("faiss")

DIM, COUNT = 32, 5000
RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((COUNT, DIM)).astype(np.float32)
QUERIES = RNG.standard_normal((4, DIM)).astype(np.float32)


@pytest.fixture(autouse=True)
def _small_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_index, "FEWEST", 1000)
    monkeypatch.setattr(half_index, "AFTER", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = FileIndex(DIM)
    written.add(np.arange(COUNT), VECTORS)
    written.save(tmp_path / "index.faiss")
    return tmp_path / "index.faiss"


def is_held(index: HalfIndex) -> bool:
    """Whether the rows are in memory, once that has been decided."""
    if index._maker is not None:
        index._maker.join(20)
    return index._half is not None


def opened(path: Path) -> HalfIndex:
    """A file whose rows are in memory."""
    index = HalfIndex.load(path)
    index.search(QUERIES[:1], 10)
    assert is_held(index)
    return index


def truth() -> ExactIndex:
    index = ExactIndex(DIM)
    index.add(np.arange(COUNT), VECTORS)
    return index


def same(index: FileIndex, other: ExactIndex, k: int = 10, allowed: np.ndarray | None = None) -> None:
    for query in QUERIES:
        ids, scores = index.search(query[None], k, allowed)
        wanted_ids, wanted = other.search(query[None], k, allowed)
        np.testing.assert_array_equal(ids, wanted_ids)
        np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_a_process_that_searches_again_and_again_holds_the_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_index, "AFTER", 8)
    index = load_index(path, "cpu")
    assert isinstance(index, HalfIndex)
    same(index, truth())
    same(index, truth())
    assert not is_held(index)
    same(index, truth())
    assert is_held(index)
    same(index, truth(), k=700)


def test_neighbours_closer_than_half_precision_can_tell_are_told_apart(tmp_path: Path) -> None:
    """300 vectors whose scores differ by less than a rounding of float16, in no order."""
    rng = np.random.default_rng(0)
    query = np.zeros((1, DIM), np.float32)
    query[0, 0] = 1
    vectors = np.zeros((COUNT, DIM), np.float32)
    vectors[:, 0] = 0.9 - rng.permutation(COUNT) * 1e-6
    vectors[np.arange(COUNT), 1 + rng.integers(0, DIM - 1, COUNT)] = np.sqrt(1 - vectors[:, 0] ** 2)
    written = FileIndex(DIM)
    written.add(np.arange(COUNT), vectors)
    written.save(tmp_path / "index.faiss")
    index = opened(tmp_path / "index.faiss")
    exact = ExactIndex(DIM)
    exact.add(np.arange(COUNT), vectors)
    ids, scores = index.search(query, 10)
    wanted_ids, wanted = exact.search(query, 10)
    rounded = vectors.astype(np.float16)[:, 0]
    assert len(np.unique(rounded[wanted_ids[0]])) < 10  # half precision cannot order them
    np.testing.assert_array_equal(ids, wanted_ids)
    np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_no_score_is_further_off_than_is_said(path: Path) -> None:
    index = opened(path)
    units = index.vectors()
    for query in QUERIES:
        unit = (query / np.linalg.norm(query))[None]
        positions, scores = index._look(None, unit, COUNT)
        errors = np.abs(scores[0] - units[positions[0]].astype(np.float64) @ unit[0])
        assert 0 < errors.max() < DOUBT / 2


def test_changes_lie_on_top_of_it(path: Path) -> None:
    index, other = opened(path), truth()
    same(index, other)
    added = RNG.standard_normal((80, DIM)).astype(np.float32)
    for one in (index, other):
        one.add(np.arange(COUNT, COUNT + 80), added)
        one.add(np.arange(10), QUERIES[[0] * 5 + [1] * 5])  # replaced
        one.remove(np.arange(500, 900))
    same(index, other)
    same(index, other, allowed=np.arange(3, COUNT + 50, 2))
    same(index, other, allowed=np.array([1, 600, 4000, COUNT + 7]))
    for one in (index, other):
        one.remove(np.arange(COUNT))
    same(index, other)


def test_narrow_filters_and_many_queries_read_the_file(path: Path) -> None:
    index = HalfIndex.load(path)
    index.search(QUERIES, 10)
    index.search(QUERIES[:1], 10, np.arange(100))
    assert not is_held(index)
    index.search(QUERIES[:1], 10, np.arange(COUNT // 2))
    assert is_held(index)


def test_small_files_large_ones_and_lists_are_not_held(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(file: Path) -> bool:
        index = HalfIndex.load(file)
        index.search(QUERIES[:1], 10)
        return is_held(index)

    lists = FileIndex(DIM)
    lists.add(np.arange(COUNT), VECTORS)
    lists.save(tmp_path / "lists.faiss", Lists(VECTORS[:7], 7, {}))
    assert not held(tmp_path / "lists.faiss")
    assert held(path)
    monkeypatch.setattr(half_index, "MOST_BYTES", 2 * COUNT * DIM - 1)
    assert not held(path)
    monkeypatch.setattr(half_index, "MOST_BYTES", 2 * COUNT * DIM)
    assert held(path)
    monkeypatch.setattr(half_index, "FEWEST", COUNT + 1)
    assert not held(path)


def test_a_damaged_file_is_not_held_and_the_search_says_so(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    index = HalfIndex.load(path)
    path.write_bytes(data)
    index._hold()
    assert not is_held(index)
    with pytest.raises(LibraryCorrupt):
        index.search(QUERIES[:1], 10)


def test_without_faiss_the_file_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_faiss", lambda: False)
    assert type(load_index(path, "cpu")) is FileIndex
