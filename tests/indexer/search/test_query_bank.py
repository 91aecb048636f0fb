"""Hubness by its definition, and a search that takes it off: the nearest of everything gives way to the nearest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from indexer.base.types import CAPTION, IMAGE, TEXT, Model
from indexer.search import query_bank as bank_module
from indexer.search.live_index import LiveIndex
from indexer.search.query_bank import QueryBank, bank_of
from indexer.vectors.exact import ExactIndex
from indexer.vectors.rows import Rows
from tests.fakes import FakeEncoder

DIM = 4
NOBODY = np.empty(0, np.int64)


def by_definition(bank: QueryBank, item: np.ndarray) -> float:
    cosines = [float(item @ centre / np.linalg.norm(item)) for centre in bank.centres.astype(np.float64)]
    powers = sum(share * np.exp(bank.sharpness * cosine) for share, cosine in zip(bank.shares, cosines, strict=True))
    return float(np.log(powers) / bank.sharpness - bank.level)


def some_bank(count: int = 7, dim: int = 16) -> QueryBank:
    rng = np.random.default_rng(1)
    shares = rng.random(count).astype(np.float32)
    centres = (0.3 * rng.standard_normal((count, dim))).astype(np.float32)
    return QueryBank("text", centres, shares / shares.sum(), 15.0, level=0.02)


def test_hubness_is_what_its_definition_says() -> None:
    items = np.random.default_rng(2).standard_normal((40, 16)).astype(np.float32)
    bank = some_bank()
    found = bank.hubness(items)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [by_definition(bank, item.astype(np.float64)) for item in items], atol=1e-6)
    np.testing.assert_allclose(bank.hubness(5 * items), found, atol=1e-6)


def test_with_one_query_it_is_the_cosine() -> None:
    bank = QueryBank("text", np.eye(3, dtype=np.float32)[:1], np.ones(1, np.float32), 9.0, level=0.25)
    np.testing.assert_allclose(
        bank.hubness(np.float32([[2, 0, 0], [0, 1, 0], [3, 4, 0]])), [0.75, -0.25, 0.35], atol=1e-6
    )


def test_equal_items_get_equal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, wherever they stand: copies of a photo are ordered by id, in every search."""
    rows = np.random.default_rng(3).standard_normal((300, 16)).astype(np.float32)
    rows[[7, 150, 299]] = rows[7]
    whole = some_bank().hubness(rows)
    assert whole[7] == whole[150] == whole[299]
    monkeypatch.setattr(bank_module, "ROWS_AT_ONCE", 11)
    monkeypatch.setattr(bank_module, "FEW", 3)
    np.testing.assert_allclose(some_bank().hubness(rows), whole, atol=1e-6)


def test_nothing_and_zeros_have_a_hubness() -> None:
    assert some_bank().hubness(np.empty((0, 16), np.float32)).shape == (0,)
    assert np.isfinite(some_bank().hubness(np.zeros((2, 16), np.float32))).all()


def test_an_encoder_need_not_know_queries() -> None:
    assert bank_of(FakeEncoder(), "text") is None


VECTORS = {
    1: (IMAGE, [1.0, 1.0, 0.0, 0.0]),  # the hub: halfway to everything that is asked
    2: (IMAGE, [0.0, 0.9, 1.0, 0.0]),
    3: (IMAGE, [0.9, 0.0, 0.0, 1.0]),
    4: (TEXT, [1.0, 1.0, 0.0, 0.1]),
    5: (CAPTION, [0.0, 1.0, 0.0, 0.0]),
}
HUB = QueryBank("text", np.float32([[0.7, 0.7, 0, 0]]), np.ones(1, np.float32), 15.0, level=0.4)
QUERY = np.float32([[0.6, 1.0, 0.35, 0.0]])


def live() -> LiveIndex:
    index = ExactIndex(Rows(DIM))
    ids, kinds = np.array(list(VECTORS)), np.array([kind for kind, _ in VECTORS.values()], np.uint8)
    index.rows.add(ids, np.float32([vector for _, vector in VECTORS.values()]))
    return LiveIndex(Model(1, "", "", DIM), index, ids, kinds, 0)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_what_is_of_the_other_modality_is_corrected(modality: str) -> None:
    corrected = {"text": (IMAGE,), "image": (TEXT, CAPTION)}[modality]
    bank = replace(HUB, modality=modality)
    expected = {}
    for one, (kind, vector) in VECTORS.items():
        item = np.float64(np.float16(vector))  # at half precision, as it is kept
        cosine = float(QUERY[0] @ item / np.linalg.norm(item) / np.linalg.norm(QUERY))
        expected[one] = cosine - (by_definition(bank, item) if kind in corrected else 0)
    for within, kinds in ((None, (IMAGE, TEXT)), ("image", (IMAGE,)), ("text", (TEXT, CAPTION))):
        best = sorted((one for one in VECTORS if VECTORS[one][0] in kinds), key=lambda one: -expected[one])
        for k in (1, 2, 9):
            ((ids, scores),) = live().nearest(QUERY, k, within, NOBODY, None, bank)
            assert ids.tolist() == best[:k]
            np.testing.assert_allclose(scores, [expected[one] for one in best[:k]], atol=1e-6)


def test_the_hub_gives_way() -> None:
    index = live()
    ((by_cosine, _),) = index.nearest(QUERY, 1, "image", NOBODY)
    ((ids, _),) = index.nearest(QUERY, 1, "image", NOBODY, None, HUB)
    assert (by_cosine.tolist(), ids.tolist()) == ([1], [2])


def test_many_queries_are_ranked_each_by_itself() -> None:
    index = live()
    queries = np.random.default_rng(5).standard_normal((20, DIM)).astype(np.float32)
    together = index.nearest(queries, 2, None, NOBODY, None, HUB)
    for query, (ids, scores) in zip(queries, together, strict=True):
        ((one, alone),) = index.nearest(query[None], 2, None, NOBODY, None, HUB)
        assert ids.tolist() == one.tolist()
        np.testing.assert_allclose(scores, alone, atol=1e-6)
    assert index.nearest(queries[:0], 2, None, NOBODY, None, HUB) == []


def test_nothing_to_find_is_nothing_found() -> None:
    ((ids, scores),) = live().nearest(QUERY, 3, None, np.arange(9), None, HUB)
    assert (len(ids), len(scores)) == (0, 0)
