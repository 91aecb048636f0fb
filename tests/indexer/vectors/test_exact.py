"""Exact search, whether the unit vectors are kept or made block by block, by one thread or by several."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from indexer.vectors import exact, rows
from indexer.vectors.exact import ExactIndex
from indexer.vectors.rows import Rows

DIM, COUNT = 16, 3000
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((COUNT, DIM)).astype(np.float16)
QUERIES = RNG.standard_normal((6, DIM)).astype(np.float32)


@pytest.fixture(params=["kept", "in blocks"])
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ExactIndex:
    """With a tail, and every seventh gone."""
    monkeypatch.setattr(exact, "ROWS_AT_ONCE", 700)
    if request.param == "in blocks":
        monkeypatch.setattr(exact, "KEPT_BYTES", 0)
    made = ExactIndex(Rows(DIM, np.arange(COUNT - 50), VECTORS[: COUNT - 50]))
    made.rows.add(np.arange(COUNT - 50, COUNT), VECTORS[COUNT - 50 :])
    made.rows.remove(np.arange(0, COUNT, 7))
    return made


def truth(k: int, allowed: np.ndarray) -> np.ndarray:
    units = VECTORS.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return allowed[np.argsort(-(QUERIES.astype(np.float64) @ units[allowed].T), axis=1)[:, :k]]


def test_the_nearest(index: ExactIndex) -> None:
    held = np.setdiff1d(np.arange(COUNT), np.arange(0, COUNT, 7))
    third = np.intersect1d(held, np.arange(5, COUNT, 3))
    for k, allowed in ((1, None), (10, None), (10, third), (len(third), third), (4, third[-4:]), (len(held), None)):
        ids, scores = index.search(QUERIES, k, allowed)
        np.testing.assert_array_equal(ids, truth(k, held if allowed is None else allowed))
        assert (np.diff(scores, axis=1) <= 0).all()


def test_from_a_position_on(index: ExactIndex) -> None:
    positions, _ = index.scan(index.mask(None), QUERIES, 60, start=COUNT - 50)
    assert sorted(positions[0].tolist()) == [one for one in range(COUNT - 50, COUNT) if one % 7]
    assert index.scan(index.mask(None), QUERIES, 5, start=COUNT)[0].shape == (6, 0)


def test_threads_find_what_one_finds(index: ExactIndex) -> None:
    alone = [index.search(query[None], 10) for query in QUERIES]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: index.search(QUERIES[row % 6][None], 10), range(60)))
    for row, (ids, scores) in enumerate(found):
        np.testing.assert_array_equal(ids, alone[row % 6][0])
        np.testing.assert_array_equal(scores, alone[row % 6][1])


def test_the_last_filter_is_remembered_while_nothing_changes(index: ExactIndex) -> None:
    allowed = np.arange(5, COUNT, 3)
    allowed.setflags(write=False)
    mask = index.mask(allowed)
    assert index.mask(allowed) is mask
    assert mask.count == np.count_nonzero(allowed % 7)
    index.rows.remove(np.array([5]))
    assert index.mask(allowed).count == mask.count - 1
    changing = np.arange(5, COUNT, 3)
    assert index.mask(changing) is not index.mask(changing)  # its owner may write into it


def test_blocks_are_small() -> None:
    assert rows.ROWS_AT_ONCE * 1024 * 4 <= 1 << 25
