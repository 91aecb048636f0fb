"""How every backend ranks: exact cosines, equal ones by id, asked for more until the order is certain."""

from __future__ import annotations

import numpy as np

from indexer.vectors.protocol import ROUNDING, Candidates, cosines, falling, joined, normalised, ranked
from indexer.vectors.rows import Rows


def test_cosines_by_definition() -> None:
    rng = np.random.default_rng(0)
    vectors = (10.0 ** rng.integers(-2, 3, (50, 1)) * rng.standard_normal((50, 8))).astype(np.float16)
    vectors[7] = 0
    query = normalised(rng.standard_normal((1, 8)), 8)[0]
    found = cosines(query, vectors)
    wide = vectors.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(wide, axis=1), 1e-300)
    np.testing.assert_allclose(found, wide @ query.astype(np.float64) / lengths, atol=1e-7)
    assert found[7] == 0
    doubled = cosines(query, 2 * vectors)
    np.testing.assert_array_equal(doubled[np.isfinite(doubled)], found[np.isfinite(doubled)])


def test_more_is_asked_for_until_the_order_is_certain() -> None:
    rows = Rows(2)
    angles = np.linspace(0, 0.5, 300)
    rows.add(np.arange(300)[::-1], np.stack([np.cos(angles), np.sin(angles)], axis=1))
    query = np.float32([[1, 0]])
    asked = []

    def fetch(queries: np.ndarray, count: int) -> Candidates:
        asked.append(count)
        scores = np.float32(normalised(rows.take(np.arange(300)), 2) @ queries[0])
        order = np.argsort(-scores)[:count]
        return order[None], scores[order][None]

    ids, _ = ranked(query, 3, 300, rows, fetch, spare=2, doubt=1e-3)
    assert asked == [5, 20, 80]
    best = np.lexsort((rows.ids, -cosines(query[0], rows.take(np.arange(300)))))[:3]
    assert ids[0].tolist() == rows.ids[best].tolist()
    asked.clear()
    ranked(query, 3, 300, rows, fetch, spare=2, doubt=-np.inf)
    assert asked == [5]  # an approximate search is asked once
    assert ROUNDING < 1e-3


def test_candidates_side_by_side() -> None:
    one = np.array([[1, 2]]), np.float32([[0.5, 0.1]])
    other = np.array([[3]]), np.float32([[0.3]])
    positions, scores = falling(joined(one, other))
    assert positions.tolist() == [[1, 3, 2]]
    assert scores.tolist() == np.float32([[0.5, 0.3, 0.1]]).tolist()
