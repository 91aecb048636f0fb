"""Large libraries are searched list by list: recall is measured with texts, held as the library changes, and told."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import EXACT_SEARCH, HIDDEN, IMAGE, TEXT, IndexFacts, Model
from indexer.catalog.library import next_change
from indexer.catalog.schema import OWN, assets, vectors
from indexer.maintenance.compare import Faults, with_index
from indexer.search import index_files, stored_index
from indexer.search.index_files import VECTORS_FOLDER, open_index, refresh
from indexer.search.live_index import LiveIndex
from indexer.vectors import choose, faiss_index, form
from indexer.vectors.faiss_index import FaissIndex
from indexer.vectors.protocol import normalised
from indexer.vectors.rows import Rows
from tests.bench.synthetic import World, make_library
from tests.fakes import FakeEncoder
from tests.indexer.asking import Store

pytest.importorskip("faiss")

DIM, COUNT, TEXTS = 32, 6000, 500
PRINT = "made up"
WORLD = World.of(DIM, clusters=50)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large here would be small elsewhere."""
    monkeypatch.setattr(form, "IVF_FROM", 1000)
    monkeypatch.setattr(faiss_index, "EXACT_ROWS", 800)
    monkeypatch.setattr(faiss_index, "TAIL_ROWS", 500)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    make_library(tmp_path / "library", COUNT, texts=TEXTS, dim=DIM, model=PRINT, world=WORLD)
    return Store.open(tmp_path / "library")


def live_of(store: Store) -> LiveIndex:
    model = store._catalog.model()
    assert model is not None
    live, sound = open_index(store._catalog, store.path / VECTORS_FOLDER, model, "cpu")
    assert sound
    return live


def facts_of(store: Store) -> IndexFacts:
    model = store._catalog.model()
    assert model is not None
    with store._catalog.begin() as connection:
        return index_files.facts(connection, model)


def centroids_of(live: LiveIndex) -> np.ndarray:
    assert isinstance(live.index, FaissIndex)
    quantizer = live.index.faiss.quantizer
    return quantizer.reconstruct_n(0, quantizer.ntotal)


def files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.path / VECTORS_FOLDER).iterdir())


def questions(count: int = 300) -> np.ndarray:
    return WORLD.texts(np.random.default_rng(77), count)


def recall(live: LiveIndex, asked: np.ndarray) -> float:
    """By searching, against a search of everything."""
    assert isinstance(live.index, FaissIndex)
    photos = live.ids[live.kinds == IMAGE]
    found, _ = live.index.search(asked, 10, photos)
    truth, _ = live.index.exact.search(asked, 10, photos)
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def means_by_id(store: Store) -> dict[int, np.ndarray]:
    """Every mean as the catalog has it."""
    with store._catalog.begin() as connection:
        rows = connection.execute(vectors.select().where(vectors.c.kind != HIDDEN)).all()
    return {row.id: np.frombuffer(row.mu, np.float16).astype(np.float32) for row in rows}


def grow(store: Store, count: int, gone: int, first: int = 100_000, seed: int = 5) -> None:
    """Photos that come, numbered from `first` on, and those up to `gone` that go, as the catalog tells of them."""
    means = WORLD.photos(np.random.default_rng(seed), count).astype(np.float16)
    with store._catalog.begin() as connection:
        change = next_change(connection)
        one = assets.select().limit(1)
        like = dict(connection.execute(one).mappings().one())
        rows = [like | {"id": first + n, "rel_path": f"new{first - 100_000 + n}.jpg"} for n in range(count)]
        connection.execute(assets.insert(), rows)
        row = {"model_id": 1, "role": OWN, "kind": IMAGE, "change": change, "logvar": b"\0" * 2 * DIM}
        connection.execute(
            vectors.insert(),
            [row | {"id": first + n, "asset_id": first + n, "mu": mu.tobytes()} for n, mu in enumerate(means)],
        )
        some = vectors.c.id.in_(range(1, gone + 1))
        connection.execute(vectors.update().where(some).values(kind=HIDDEN, change=change))


def test_recall_is_measured_and_holds_for_other_texts(store: Store) -> None:
    live, facts = live_of(store), facts_of(store)
    assert (facts.recall_at_10 or 0) >= (facts.recall_at_10_low or 0) >= form.RECALL
    assert facts.questions == 400
    assert facts.nprobe < facts.lists / 4
    assert recall(live, questions()) >= form.RECALL
    status = store.status()
    assert status.recall_at_10 == facts.recall_at_10
    assert f"{facts.nprobe} of {facts.lists} lists" in status.search
    assert f"the best {facts.depth} ranked again" in status.search


def test_what_is_found_has_its_exact_score(store: Store) -> None:
    live = live_of(store)
    asked = questions(20)
    ids, scores = live.index.search(asked, 10)
    means = means_by_id(store)
    unit = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    for row in range(len(asked)):
        found = np.stack([means[one] for one in ids[row].tolist()])
        np.testing.assert_allclose(scores[row], found @ unit[row] / np.linalg.norm(found, axis=1), atol=1e-6)
    together = live.index.search(asked, 10)
    alone = [live.index.search(one[None, :], 10) for one in asked]
    np.testing.assert_array_equal(together[0], np.concatenate([ids for ids, _ in alone]))


def test_recall_holds_while_photos_come_and_go_without_a_new_file(store: Store) -> None:
    reader = live_of(store)
    assert isinstance(reader.index, FaissIndex)
    grow(store, count=900, gone=700)
    with store._catalog.begin() as connection:
        assert reader.replay(connection) == 1600
    reader.index.search(questions(1), 1)
    assert reader.index.faiss.ntotal == COUNT + 900  # more than a tail: it went into FAISS's index in memory
    grow(store, count=100, gone=0, first=200_000, seed=6)
    with store._catalog.begin() as connection:
        assert reader.replay(connection) == 100
    reader.index.search(questions(1), 1)
    assert reader.index.faiss.ntotal == COUNT + 900  # few, which are looked at one by one
    assert recall(reader, questions()) >= form.RECALL
    for seed, count, first in ((5, 900, 100_000), (6, 100, 200_000)):
        new, _ = reader.index.search(WORLD.photos(np.random.default_rng(seed), count)[:5], 1)
        assert new[:, 0].tolist() == [first + n for n in range(5)]
    found, _ = reader.index.search(questions(), 10)
    assert found.min() > 700  # what went is not found


def test_a_new_file_keeps_the_centroids_and_measures_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = live_of(store)
    grow(store, count=900, gone=700)
    monkeypatch.setattr(form, "trained", lambda *_: pytest.fail("trained again for so little"))
    refresh(store._catalog, store.path / VECTORS_FOLDER, before.model)
    after = live_of(store)
    assert isinstance(after.index, FaissIndex)
    np.testing.assert_array_equal(centroids_of(after), centroids_of(before))
    assert after.index.faiss.ntotal == len(after.index.rows) == COUNT + 200
    assert recall(after, questions()) >= form.RECALL
    assert sorted(after.index.rows.ids[after.index.rows.alive].tolist()) == after.ids.tolist()
    held = after.index.faiss.invlists
    places = [_ids(held, number) for number in range(held.nlist)]
    assert np.sort(np.concatenate(places)).tolist() == list(range(COUNT + 200))


def _ids(lists: object, number: int) -> np.ndarray:
    import faiss

    size = lists.list_size(number)  # type: ignore[attr-defined]
    return faiss.rev_swig_ptr(lists.get_ids(number), size).copy()  # type: ignore[attr-defined]


def test_lists_taken_over_are_those_of_an_index_built_anew(store: Store) -> None:
    """The same centroids, the same bits: a search of both finds the same, estimate for estimate."""
    grow(store, count=900, gone=700)
    before = live_of(store)
    ids = np.sort(before.index.rows.ids[before.index.rows.alive])
    rows = Rows(DIM)
    rows.add(ids, before.index.rows.vectors_of(ids))
    assert isinstance(before.index, FaissIndex)
    centroids = centroids_of(before)
    taken_over = form.refilled(rows, before.index)
    quantizer = faiss_index.load_faiss().IndexFlatIP(DIM)
    quantizer.add(centroids)
    empty = form.new_ivf(quantizer, DIM, len(centroids))
    empty.train(normalised(rows.take(np.arange(COUNT)), DIM))
    anew = FaissIndex(rows, empty, before.index.probing)
    anew.absorb()
    asked, mask = normalised(questions(50), DIM), anew.exact.mask(None)
    one, other = taken_over.candidates(mask, asked, 50), anew.candidates(mask, asked, 50)
    np.testing.assert_allclose(one[1], other[1], atol=1e-5)
    assert np.mean(one[0] == other[0]) > 0.99  # equal estimates may stand in another order


def test_recall_holds_over_many_saves(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth comes and a tenth goes, in five runs: every file on the way keeps the promise, none is retrained."""
    first = live_of(store)
    with monkeypatch.context() as patch:
        patch.setattr(form, "trained", lambda *_: pytest.fail("trained again for so little"))
        for turn in range(5):
            grow(store, count=COUNT // 25, gone=COUNT // 50 * (turn + 1), first=100_000 + 1000 * turn, seed=turn)
            refresh(store._catalog, store.path / VECTORS_FOLDER, first.model)
            assert recall(live_of(store), questions()) >= form.RECALL
    live = live_of(store)
    assert isinstance(live.index, FaissIndex)
    assert live.index.faiss.ntotal > COUNT  # written anew on the way, not only replayed
    np.testing.assert_array_equal(centroids_of(live), centroids_of(first))
    assert len(live.index.rows) == COUNT + COUNT // 5 - COUNT // 10
    assert (store.status().recall_at_10 or 0) >= form.RECALL
    assert facts_of(store).trained_on == COUNT


def test_a_library_that_has_doubled_is_trained_again(store: Store) -> None:
    before = live_of(store)
    grow(store, count=COUNT + 100, gone=0)
    refresh(store._catalog, store.path / VECTORS_FOLDER, before.model)
    assert facts_of(store).trained_on == 2 * COUNT + 100
    assert recall(live_of(store), questions()) >= form.RECALL


def test_a_few_changes_are_replayed_and_not_written(store: Store) -> None:
    before = sorted(path.name for path in (store.path / VECTORS_FOLDER).iterdir())
    grow(store, count=20, gone=5)
    model = store._catalog.model()
    assert isinstance(model, Model)
    refresh(store._catalog, store.path / VECTORS_FOLDER, model)
    assert sorted(path.name for path in (store.path / VECTORS_FOLDER).iterdir()) == before
    hits = store.search(WORLD.photos(np.random.default_rng(5), 20)[0], 3, fingerprint=PRINT)
    assert hits[0].path.name == "new0.jpg"


@pytest.mark.parametrize("allowed_count", [3, 50, 799])
def test_filters_are_exact(store: Store, allowed_count: int) -> None:
    live = live_of(store)
    allowed = np.random.default_rng(allowed_count).choice(live.ids, allowed_count, replace=False)
    asked = questions(30)
    ids, _ = live.index.search(asked, 10, allowed)
    means = normalised(live.index.rows.vectors_of(allowed), DIM)
    for row, question in enumerate(asked):
        order = np.argsort(-(means @ question), kind="stable")[:10]
        assert ids[row][: len(order)].tolist() == allowed[order].tolist()
        assert (ids[row][len(order) :] == -1).all()
    texts = live.nearest(asked, 10, "text", np.empty(0, np.int64))
    of_texts = set(live.ids[live.kinds == TEXT].tolist())
    assert all(len(found) == 10 and set(found.tolist()) <= of_texts for found, _ in texts)


def test_a_wide_filter_returns_only_and_as_many_as_it_may(store: Store) -> None:
    live = live_of(store)
    allowed = live.ids[::3]
    found, scores = live.index.search(questions(50), 25, allowed)
    assert (found >= 0).all()
    assert set(found.ravel().tolist()) <= set(allowed.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()
    everything, _ = live.index.search(questions(2), COUNT)
    assert sorted(everything[0].tolist()) == live.ids.tolist()


def test_hits_of_a_large_library_are_the_nearest_with_their_scores(store: Store) -> None:
    live, means = live_of(store), means_by_id(store)
    (path,) = (store.path / VECTORS_FOLDER).glob("index-*.faiss")
    assert path.stat().st_size < COUNT * (DIM // 8 + 8 + 8) * 1.3 + 40_000  # a bit a dimension, factors, ids; centroids
    photos = live.ids[live.kinds == IMAGE]
    unit = {one: mean / np.linalg.norm(mean) for one, mean in means.items()}
    matrix = np.stack([unit[one] for one in photos.tolist()])
    found, asked = 0, normalised(questions(100), DIM)
    for question in asked:
        hits = store.search(question, 10, fingerprint=PRINT, within="image")
        truth = photos[np.argsort(-(matrix @ question), kind="stable")[:10]]
        found += len({hit.asset_id for hit in hits} & set(truth.tolist()))
        np.testing.assert_allclose(
            [hit.score for hit in hits], [unit[hit.asset_id] @ question for hit in hits], atol=1e-6
        )
    assert found / 1000 >= form.RECALL


def test_an_asset_that_is_left_out_costs_no_hit(store: Store) -> None:
    asked = questions(1)[0]
    hits = store.search(asked, 10, fingerprint=PRINT)
    others = store.search(asked, 9, fingerprint=PRINT, exclude=[hits[0].asset_id])
    assert [hit.asset_id for hit in others] == [hit.asset_id for hit in hits[1:]]


def test_a_doctor_compares_the_file_with_the_catalog(store: Store) -> None:
    model = store._catalog.model()
    assert model is not None
    for wrong in (False, True):
        if wrong:
            with store._catalog.begin() as connection:
                other = WORLD.photos(np.random.default_rng(8), 1)[0].astype(np.float16).tobytes()
                connection.execute(vectors.update().where(vectors.c.id == 17).values(mu=other))
        faults = Faults()
        with store._catalog.begin() as connection:
            found = with_index(connection, store.path / VECTORS_FOLDER, model, faults)
        assert [check.found for check in found][::2] == [
            f"{COUNT} vectors can be used",
            f"{int(wrong)} of {COUNT} vectors differ from the index file",
        ]
        assert faults.doubtful == ({17} if wrong else set())


def test_without_texts_a_search_is_exact_until_there_are_questions(tmp_path: Path) -> None:
    make_library(tmp_path / "library", 3000, texts=10, dim=DIM, model=PRINT, world=WORLD)
    with Store.open(tmp_path / "library") as store:
        assert facts_of(store) == EXACT_SEARCH
        assert (store.status().search, store.status().recall_at_10) == ("exact", None)
        unit = {one: mean / np.linalg.norm(mean) for one, mean in means_by_id(store).items()}
        asked = questions(1)[0]
        hits = store.search(asked, 10, fingerprint=PRINT)
        assert [hit.asset_id for hit in hits] == sorted(unit, key=lambda one: -float(unit[one] @ asked))[:10]
        assert store.wants_questions()
        store.keep_questions(questions(400), PRINT)
        assert not store.wants_questions()
        assert facts_of(store).form == "ivf"
        assert (store.status().recall_at_10 or 0) >= form.RECALL


@pytest.mark.parametrize(
    ("count", "lists"), [(1, 2), (10_000, 200), (100_000, 632), (1_000_000, 2000), (10_000_000, 6325)]
)
def test_lists_are_twice_the_root(count: int, lists: int) -> None:
    assert form.lists_for(count) == lists


def test_questions_far_from_everything_are_answered_exactly(tmp_path: Path) -> None:
    """Where so many lists would be needed that looking at everything is no slower, everything is looked at."""
    rng = np.random.default_rng(0)
    rows = Rows(DIM)
    rows.add(np.arange(3000), rng.standard_normal((3000, DIM)))  # no structure at all
    index, facts = form.planned(rows, rng.standard_normal((400, DIM)).astype(np.float32), None)
    assert index is None
    assert (facts.form, facts.questions) == ("exact", 400)


@pytest.mark.parametrize("suffix", [".faiss", ".f16"])
def test_damage_is_set_aside_and_the_file_made_again(store: Store, suffix: str) -> None:
    expected = [hit.path for hit in store.search(questions(1)[0], 10, fingerprint=PRINT)]
    (path,) = (store.path / VECTORS_FOLDER).glob(f"index-*{suffix}")
    data = bytearray(path.read_bytes())
    data[len(data) // 4 :: 4096] = bytes(b ^ 1 for b in data[len(data) // 4 :: 4096])
    path.write_bytes(data)
    with Store.open(store.path) as again:
        assert len(set(expected) & {hit.path for hit in again.search(questions(1)[0], 10, fingerprint=PRINT)}) >= 9
        assert [name for name in files(store) if ".bad-" in name] == [
            name for name in files(store) if name.startswith(f"{path.name}.bad-")
        ]
        assert any(".bad-" in name for name in files(store))
        assert len([name for name in files(store) if ".bad-" not in name]) == 2  # made again
        assert path.read_bytes() != data if path.exists() else suffix == ".f16"
        assert live_of(again).facts.form == "ivf"


def test_damage_of_a_large_file_is_found_in_the_background(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large to compare while somebody waits: the first answers come before, the later ones are right."""
    monkeypatch.setattr(stored_index, "CHECKED_BYTES", 100_000)
    monkeypatch.setattr(stored_index, "CHECK_AFTER_S", 0.0)
    asked = questions(1)[0]
    expected = store.search(asked, 10, fingerprint=PRINT)
    (path,) = (store.path / VECTORS_FOLDER).glob("index-*.f16")
    data = bytearray(path.read_bytes())
    for hit in expected:
        data[2 * DIM * hit.asset_id : 2 * DIM * hit.asset_id + 2] = b"\0\0"
    path.write_bytes(data)
    with Store.open(store.path) as again:
        again.search(asked, 10, fingerprint=PRINT)
        (searcher,) = again.searchers.values()
        for _ in range(100):
            assert searcher._live is not None
            if searcher._live.damage is not None:
                break
            time.sleep(0.05)
        assert again.search(asked, 10, fingerprint=PRINT) == expected
        assert any(name.startswith(f"{path.name}.bad-") for name in files(store))
        assert path.name not in files(store)


def test_a_library_written_without_faiss_gets_lists_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(choose, "has_faiss", lambda: False)
        make_library(tmp_path / "library", 3000, texts=TEXTS, dim=DIM, model=PRINT, world=WORLD)
        with Store.open(tmp_path / "library") as store:
            assert facts_of(store) == EXACT_SEARCH
            expected = store.search(questions(1)[0], 10, fingerprint=PRINT)
    with Store.open(tmp_path / "library") as store:
        assert store.search(questions(1)[0], 10, fingerprint=PRINT) == expected
        model = store._catalog.model()
        assert model is not None
        assert refresh(store._catalog, store.path / VECTORS_FOLDER, model) == 3000
        assert facts_of(store).form == "ivf"
        assert refresh(store._catalog, store.path / VECTORS_FOLDER, model) == 0
        with monkeypatch.context() as patch:
            patch.setattr(choose, "has_faiss", lambda: False)
            with Store.open(tmp_path / "library") as other:
                assert other.search(questions(1)[0], 10, fingerprint=PRINT) == expected


def test_a_build_of_faiss_without_rabitq_keeps_half_precision_in_the_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(faiss_index.load_faiss(), "IndexIVFRaBitQFastScan")
    make_library(tmp_path / "library", COUNT, texts=TEXTS, dim=DIM, model=PRINT, world=WORLD)
    with Store.open(tmp_path / "library") as store:
        assert type(live_of(store).index.faiss).__name__ == "IndexIVFScalarQuantizer"  # type: ignore[attr-defined]
        assert recall(live_of(store), questions()) >= form.RECALL
        grow(store, count=900, gone=700)
        model = store._catalog.model()
        assert model is not None
        refresh(store._catalog, store.path / VECTORS_FOLDER, model)
        assert recall(live_of(store), questions()) >= form.RECALL


def test_a_library_without_texts_is_given_questions_by_indexing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmsearch import Library

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("words")
    encoder = FakeEncoder(dim=DIM)
    with Library.open(tmp_path / "library", model=encoder) as library:
        make_library(library.path, 2000, dim=DIM, model=encoder.fingerprint, world=WORLD)
        library.index(tmp_path / "notes")
        assert list((library.path / VECTORS_FOLDER).glob("questions-*.npy"))
        encoded = encoder.texts_encoded
        library.index(tmp_path / "notes")
        assert encoder.texts_encoded == encoded
