"""FAISS below the exact ranking: threads, filters, what came since, and how far each goes."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faiss")

from indexer.vectors import faiss_index, form
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_index import FaissIndex, Probing
from indexer.vectors.rows import Rows
from tests.bench.synthetic import World

DIM, COUNT = 32, 5000
WORLD = World.of(DIM, clusters=40)
VECTORS = WORLD.photos(np.random.default_rng(0), COUNT)
QUERIES = WORLD.texts(np.random.default_rng(1), 40)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_index, "EXACT_ROWS", 100)
    monkeypatch.setattr(faiss_index, "TAIL_ROWS", 200)


def rows() -> Rows:
    held = Rows(DIM)
    held.add(np.arange(COUNT), VECTORS)
    return held


def made(kind: str) -> FaissIndex:
    if kind == "flat":
        return FaissIndex(rows())
    index = form.trained(rows())
    index.probing = Probing(20, 200)
    return index


def recall(index: FaissIndex, k: int, allowed: np.ndarray | None = None) -> float:
    found, truth = index.search(QUERIES, k, allowed)[0], ExactIndex(index.rows).search(QUERIES, k, allowed)[0]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


@pytest.mark.parametrize(("kind", "least"), [("flat", 1.0), ("ivf", 0.95)])
def test_recall_with_filters_many_results_and_changes(kind: str, least: float) -> None:
    index = made(kind)
    assert recall(index, 10) >= least
    assert recall(index, 80) >= least
    assert recall(index, 10, np.arange(0, COUNT, 3)) >= least
    assert recall(index, 10, np.arange(0, COUNT, 60)) == 1  # so few that each is looked at
    assert recall(index, COUNT // 10) == 1  # so many that all are
    near = index.search(QUERIES, 3)[0]
    index.rows.remove(near[:, 0])
    index.rows.add(np.arange(COUNT, COUNT + 150), WORLD.photos(np.random.default_rng(2), 150))
    assert recall(index, 10) >= least
    assert not np.isin(near[:, 0], index.search(QUERIES, 10)[0]).any()


def test_a_tail_that_grows_goes_into_the_lists() -> None:
    index = made("ivf")
    new = WORLD.photos(np.random.default_rng(2), 300)
    index.rows.add(np.arange(COUNT, COUNT + 150), new[:150])
    assert index.faiss.ntotal == COUNT
    assert index.search(new[:150], 1)[0][:, 0].tolist() == list(range(COUNT, COUNT + 150))  # each is looked at
    index.rows.add(np.arange(COUNT + 150, COUNT + 300), new[150:])
    assert np.mean(index.search(new, 1)[0][:, 0] == np.arange(COUNT, COUNT + 300)) > 0.97
    assert index.faiss.ntotal == COUNT + 300


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_threads_find_what_one_finds(kind: str) -> None:
    index = made(kind)
    allowed = [None, np.arange(0, COUNT, 2), np.arange(0, COUNT, 3)]
    alone = {(row, one): index.search(QUERIES[row][None], 10, allowed[one]) for row in range(5) for one in range(3)}
    with ThreadPoolExecutor(4) as pool:
        keys = list(alone) * 10
        found = list(pool.map(lambda key: index.search(QUERIES[key[0]][None], 10, allowed[key[1]]), keys))
    for key, (ids, scores) in zip(keys, found, strict=True):
        np.testing.assert_array_equal(ids, alone[key][0])
        np.testing.assert_array_equal(scores, alone[key][1])


def test_fewer_pass_than_the_lists_looked_at_hold() -> None:
    """All that may be found is far from the question: as many as there are come back all the same."""
    index = made("ivf")
    far = np.argsort(VECTORS @ QUERIES[0])[:400]
    index.probing = Probing(1, 200)
    ids, _ = index.search(QUERIES[:1], 10, far)
    assert (ids >= 0).all()
    assert set(ids[0].tolist()) <= set(far.tolist())


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    index = made("ivf")
    checksum, size_bytes = index.write(tmp_path / "index.faiss")
    content = (tmp_path / "index.faiss").read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (checksum, size_bytes)
    read = FaissIndex.load(content, rows(), Probing(20, 200))
    for one, other in zip(index.search(QUERIES, 10), read.search(QUERIES, 10), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(FileExistsError):
        index.write(tmp_path / "index.faiss")
