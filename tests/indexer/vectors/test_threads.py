"""A search of everything by several threads finds what one finds, and a damaged piece is found by any of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryCorrupt
from indexer.vectors import best
from indexer.vectors.exact import ExactIndex
from indexer.vectors.file_index import FileIndex
from indexer.vectors.layout import FLAT_ROWS

DIM, COUNT = 16, 4 * FLAT_ROWS + 100
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((COUNT, DIM)).astype(np.float32)
QUERIES = RNG.standard_normal((3, DIM)).astype(np.float32)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileIndex:
    """A file with a tail beside it, searched by four threads."""
    monkeypatch.setattr(best, "THREADED_BYTES", 1)
    monkeypatch.setattr(best, "cores", lambda: 8)
    written = FileIndex(DIM)
    written.add(np.arange(COUNT - 50), VECTORS[: COUNT - 50])
    written.save(tmp_path / "index.faiss")
    index = FileIndex.load(tmp_path / "index.faiss")
    index.add(np.arange(COUNT - 50, COUNT), VECTORS[COUNT - 50 :])
    index.remove(np.arange(0, COUNT, 7))
    return index


def test_the_answers_are_those_of_one_thread(opened: FileIndex) -> None:
    truth = ExactIndex(DIM)
    truth.add(np.arange(COUNT), VECTORS)
    truth.remove(np.arange(0, COUNT, 7))
    allowed = np.arange(5, COUNT, 3)
    for k, among in ((1, None), (10, None), (COUNT, None), (10, allowed), (5, allowed[-4:])):
        ids, scores = opened.search(QUERIES, k, among)
        wanted_ids, wanted = truth.search(QUERIES, k, among)
        np.testing.assert_array_equal(ids, wanted_ids)
        np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_lists_are_shared_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best, "cores", lambda: 8)
    assert best.shared_out(range(3, 13), 100 * best.THREADED_BYTES) == [
        range(3, 5),
        range(5, 8),
        range(8, 10),
        range(10, 13),
    ]
    assert best.shared_out(range(2), 100 * best.THREADED_BYTES) == [range(1), range(1, 2)]
    assert best.shared_out(range(9), best.THREADED_BYTES - 1) == [range(9)]
    assert best.shared_out(range(0), 0) == [range(0)]


def test_damage_is_found_by_whoever_reads_it(opened: FileIndex) -> None:
    assert opened.file is not None
    path = opened.file.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(LibraryCorrupt, match="has changed since it was written"):
        FileIndex.load(path).search(QUERIES, 10)
