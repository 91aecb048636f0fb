"""The index in memory: exact answers over the catalog's vectors, filters, hubness, changes replayed."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import CAPTION, IMAGE, TEXT, Modality, Model
from indexer.search.live_index import SEARCHED, LiveIndex, from_catalog
from indexer.search.query_bank import QueryBank
from indexer.store import Store
from tests.fakes import COLOURS, FakeEncoder, paint

NONE = np.empty(0, np.int64)


@pytest.fixture
def filled(store: Store, photos: Path, encoder: FakeEncoder) -> Store:
    for number in range(40):
        paint(photos / f"p{number}.png", list(COLOURS)[number % len(COLOURS)], seed=number)
    for number in range(10):
        (photos / f"t{number}.txt").write_text(f"text number {number}")
    (photos / "p0.txt").write_text("a door in Lisbon")
    store.ingest(photos, encoder)
    return store


def live_of(store: Store) -> tuple[LiveIndex, Model]:
    model = store._catalog.model()
    assert model is not None
    with store._catalog.begin() as connection:
        return from_catalog(connection, model, "cpu"), model


def truth(store: Store, live: LiveIndex, query: np.ndarray, within: Modality | None) -> dict[int, float]:
    """Cosines of every vector that `within` finds, out of the catalog."""
    with store._catalog.begin() as connection:
        rows = connection.exec_driver_sql("SELECT id, mu FROM vectors WHERE kind <> 0 AND mu IS NOT NULL").all()
    kinds = dict(zip(live.ids.tolist(), live.kinds.tolist(), strict=True))
    means = {number: np.frombuffer(mu, np.float16).astype(np.float64) for number, mu in rows}
    unit = query / np.linalg.norm(query)
    return {
        number: float(mu @ unit / np.linalg.norm(mu))
        for number, mu in means.items()
        if kinds[number] in SEARCHED[within]
    }


@pytest.mark.parametrize("within", [None, "image", "text"])
def test_the_nearest_are_those_of_the_catalog(filled: Store, encoder: FakeEncoder, within: Modality | None) -> None:
    live, _ = live_of(filled)
    assert (np.diff(live.ids) > 0).all()
    assert sorted(set(live.kinds.tolist())) == [IMAGE, TEXT, CAPTION]
    queries = encoder.embed_texts(["red", "a door in Lisbon", "text number 3"]).mu
    for query, (ids, scores) in zip(queries, live.nearest(queries, 8, within, NONE), strict=True):
        expected = truth(filled, live, query, within)
        best = sorted(expected.values(), reverse=True)[:8]
        np.testing.assert_allclose(scores, best, atol=2e-3)
        np.testing.assert_allclose(scores, [expected[number] for number in ids.tolist()], atol=2e-3)


@pytest.mark.parametrize("hidden_count", [1, 30])
def test_hidden_ones_are_not_found_and_others_take_their_place(
    filled: Store, encoder: FakeEncoder, hidden_count: int
) -> None:
    live, _ = live_of(filled)
    query = encoder.embed_texts(["red"]).mu
    ((all_ids, all_scores),) = live.nearest(query, 50, None, NONE)
    hidden = np.sort(all_ids[:hidden_count])
    ((ids, scores),) = live.nearest(query, 10, None, hidden)
    np.testing.assert_allclose(scores, all_scores[hidden_count : hidden_count + 10], atol=1e-3)
    assert not set(ids.tolist()) & set(hidden.tolist())
    ((few, _),) = live.nearest(query, 10, None, hidden[:0], among=np.sort(all_ids[3:6]))
    assert set(few.tolist()) == set(all_ids[3:6].tolist())


def test_a_bank_takes_the_hubness_off_what_is_of_the_other_modality(filled: Store, encoder: FakeEncoder) -> None:
    live, _ = live_of(filled)
    query = encoder.embed_texts(["red"]).mu
    centre = encoder.embed_texts(["blue"]).mu
    bank = QueryBank("text", 0.3 * centre / np.linalg.norm(centre), np.ones(1, np.float32), sharpness=20.0)
    plain = dict(zip(*(part.tolist() for part in live.nearest(query, 50, None, NONE)[0]), strict=True))
    ((ids, scores),) = live.nearest(query, 50, None, NONE, bank=bank)
    kinds = dict(zip(live.ids.tolist(), live.kinds.tolist(), strict=True))
    assert (np.diff(scores) <= 1e-6).all()
    for number, score in zip(ids.tolist(), scores.tolist(), strict=True):
        if kinds[number] == IMAGE:
            assert abs(score - plain[number]) <= 0.31
        else:
            assert score == pytest.approx(plain[number], abs=1e-5), "texts are not what a text is a hub for"
    assert any(abs(score - plain[number]) > 0.05 for number, score in zip(ids.tolist(), scores.tolist(), strict=True))


def test_an_index_that_replayed_changes_equals_one_built_anew(
    filled: Store, photos: Path, encoder: FakeEncoder
) -> None:
    live, _ = live_of(filled)
    with filled._catalog.begin() as connection:
        assert live.replay(connection) == 0
    (photos / "p1.png").unlink()
    (photos / "p0.txt").unlink()
    paint(photos / "p2.png", "grey", seed=77)
    paint(photos / "new.png", "red", seed=78)
    filled.ingest(photos, encoder)
    with filled._catalog.begin() as connection:
        assert live.replay(connection) > 0
        assert live.replay(connection) == 0
    anew, _ = live_of(filled)
    assert live.change == anew.change
    np.testing.assert_array_equal(live.ids, anew.ids)
    np.testing.assert_array_equal(live.kinds, anew.kinds)
    queries = encoder.embed_texts(["red", "grey", "text number 5"]).mu
    for (ids, scores), (others, their_scores) in zip(
        live.nearest(queries, 20, None, NONE), anew.nearest(queries, 20, None, NONE), strict=True
    ):
        np.testing.assert_array_equal(ids, others)
        np.testing.assert_allclose(scores, their_scores, atol=1e-6)


def test_as_many_hits_as_anybody_asks_for_take_no_memory_by_that_number(filled: Store, encoder: FakeEncoder) -> None:
    live, _ = live_of(filled)
    query = encoder.embed_texts(["red"]).mu
    everything = live.nearest(query, len(live.ids), None, NONE)[0]
    tracemalloc.start()
    try:
        for k in (10**9, 2**62, 10**30):
            for found, expected in zip(live.nearest(query, k, None, NONE)[0], everything, strict=True):
                np.testing.assert_array_equal(found, expected)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
