"""Large libraries are searched list by list: recall is measured with texts, held as the library changes, and told."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import Model
from indexer.catalog.library import next_change
from indexer.catalog.schema import HIDDEN, IMAGE, OWN, TEXT, assets, vectors
from indexer.maintenance.compare import Faults, with_index
from indexer.search import index_files as generations
from indexer.search.index_files import VECTORS_FOLDER, open_index, refresh
from indexer.search.live_index import LiveIndex, means_of
from indexer.store import Store
from indexer.vectors import file_index, lists
from tests.bench.synthetic import World, make_library
from tests.fakes import FakeEncoder

DIM, COUNT, TEXTS = 32, 6000, 500
PRINT = "made up"
WORLD = World.of(DIM, clusters=50)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large here would be small elsewhere."""
    for module in (lists, generations):
        monkeypatch.setattr(module, "LISTS_FROM", 1000)
    monkeypatch.setattr(lists, "EXACT_MS", -1.0)
    monkeypatch.setattr(file_index, "EXACT_ROWS", 800)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    make_library(tmp_path / "library", COUNT, texts=TEXTS, dim=DIM, model=PRINT, world=WORLD)
    return Store.open(tmp_path / "library")


@pytest.fixture
def bytes_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The same library, so large that its index file is one of bytes."""
    monkeypatch.setattr(file_index, "CODED_BYTES", 4 * DIM * COUNT // 2)
    monkeypatch.setattr(file_index, "TAIL_ROWS", 1000)
    make_library(tmp_path / "library", COUNT, texts=TEXTS, dim=DIM, model=PRINT, world=WORLD)
    return Store.open(tmp_path / "library")


def live_of(store: Store) -> LiveIndex:
    model = store._catalog.model()
    assert model is not None
    live, sound = open_index(store._catalog, store.path / VECTORS_FOLDER, model, "cpu")
    assert sound
    return live


def questions(count: int = 300) -> np.ndarray:
    return WORLD.texts(np.random.default_rng(77), count)


def recall(live: LiveIndex, asked: np.ndarray) -> float:
    """By searching, against a search of everything."""
    photos = live.ids[live.kinds == IMAGE]
    found, _ = live.index.search(asked, 10, photos)
    truth = live.index._all_ids()[live.index.search_exactly(asked, 10, photos)]
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
    live = live_of(store)
    facts = live.index.file.facts
    assert facts["recall_at_10"] >= facts["recall_at_10_low"] >= lists.RECALL
    assert facts["questions"] == 400
    assert facts["probes"] < facts["lists"] / 4
    assert recall(live, questions()) >= lists.RECALL
    status = store.status()
    assert status.recall_at_10 == facts["recall_at_10"]
    assert f"{facts['probes']} of {facts['lists']} lists" in status.search


def test_what_is_found_has_its_exact_score(store: Store) -> None:
    live = live_of(store)
    asked = questions(20)
    ids, scores = live.index.search(asked, 10)
    unit = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    for row in range(len(asked)):
        vectors_found = np.stack([live.index.vectors_of(np.array([one]))[0] for one in ids[row].tolist()])
        np.testing.assert_allclose(scores[row], vectors_found @ unit[row], atol=1e-6)
    together = live.index.search(asked, 10)
    alone = [live.index.search(one[None, :], 10) for one in asked]
    np.testing.assert_array_equal(together[0], np.concatenate([ids for ids, _ in alone]))


def test_recall_holds_while_photos_come_and_go_without_a_new_file(store: Store) -> None:
    reader = live_of(store)
    grow(store, count=900, gone=700)
    with store._catalog.begin() as connection:
        assert reader.replay(connection) == 1600
    assert recall(reader, questions()) >= lists.RECALL
    assert reader.index.file is not None
    new, _ = reader.index.search(WORLD.photos(np.random.default_rng(5), 900)[:5], 1)
    assert new[:, 0].tolist() == [100_000 + n for n in range(5)]
    found, _ = reader.index.search(questions(), 10)
    assert found.min() > 700  # what went is not found


def test_a_new_file_keeps_the_centroids_and_measures_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = live_of(store)
    grow(store, count=900, gone=700)
    monkeypatch.setattr(lists, "trained", lambda *_: pytest.fail("trained again for so little"))
    refresh(store._catalog, store.path / VECTORS_FOLDER, before.model)
    after = live_of(store)
    np.testing.assert_array_equal(after.index.file.centroids, before.index.file.centroids)
    assert len(after.index) == COUNT + 200
    assert recall(after, questions()) >= lists.RECALL
    assert sorted(after.index.ids().tolist()) == after.ids.tolist()


@pytest.mark.parametrize("kept_as", ["store", "bytes_store"])
def test_recall_holds_over_many_saves(kept_as: str, request: pytest.FixtureRequest) -> None:
    """A fifth comes and a tenth goes, in five runs: every file on the way keeps the promise, none is retrained."""
    store: Store = request.getfixturevalue(kept_as)
    first = live_of(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "trained", lambda *_: pytest.fail("trained again for so little"))
        for turn in range(5):
            grow(store, count=COUNT // 25, gone=COUNT // 50 * (turn + 1), first=100_000 + 1000 * turn, seed=turn)
            refresh(store._catalog, store.path / VECTORS_FOLDER, first.model)
    live = live_of(store)
    assert live.index.file.count > COUNT  # written anew on the way, not only replayed
    np.testing.assert_array_equal(live.index.file.centroids, first.index.file.centroids)
    assert len(live.index) == COUNT + COUNT // 5 - COUNT // 10
    photos = live.ids[live.kinds == IMAGE]
    with store._catalog.begin() as connection:
        originals = partial(means_of, connection, live.model)
        found, _ = live.index.search(questions(), 10, photos, originals)
        truth = live.index._all_ids()[live.index.search_exactly(questions(), 10, photos, originals)]
    hit = [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]
    assert np.mean(hit) >= lists.RECALL
    assert (store.status().recall_at_10 or 0) >= lists.RECALL


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
    means = live.index.vectors_of(allowed)
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


def test_a_file_of_bytes_keeps_recall_and_exact_scores(bytes_store: Store) -> None:
    live = live_of(bytes_store)
    means = means_by_id(bytes_store)
    assert live.index.file.scale is not None
    (path,) = (bytes_store.path / VECTORS_FOLDER).glob("index-*")
    assert path.stat().st_size < COUNT * (DIM + 17) + 200_000  # a byte a dimension, two ids, sums and centroids
    status = bytes_store.status()
    assert (status.recall_at_10 or 0) >= lists.RECALL
    assert "in 8 bits" in status.search
    asked = questions()
    photos = live.ids[live.kinds == IMAGE]
    unit = {one: mean / np.linalg.norm(mean) for one, mean in means.items()}
    matrix = np.stack([unit[one] for one in photos.tolist()])
    found = 0
    for question in asked[:100] / np.linalg.norm(asked[:100], axis=1, keepdims=True):
        hits = bytes_store.search(question, 10, fingerprint=PRINT, within="image")
        truth = photos[np.argsort(-(matrix @ question), kind="stable")[:10]]
        found += len({hit.asset_id for hit in hits} & set(truth.tolist()))
        np.testing.assert_allclose(
            [hit.score for hit in hits], [unit[hit.asset_id] @ question for hit in hits], atol=1e-6
        )
    assert found / 1000 >= lists.RECALL


def test_filters_are_exact_in_bytes(bytes_store: Store) -> None:
    live = live_of(bytes_store)
    unit = {one: mean / np.linalg.norm(mean) for one, mean in means_by_id(bytes_store).items()}
    for count in (3, 50, 799):
        allowed = np.sort(np.random.default_rng(count).choice(live.ids, count, replace=False))
        matrix = np.stack([unit[one] for one in allowed.tolist()])
        with bytes_store._catalog.begin() as connection:
            originals = partial(means_of, connection, live.model)
            ids, _ = live.index.search(questions(30), 10, allowed, originals)
        for row, question in zip(ids, questions(30), strict=True):
            order = np.argsort(-(matrix @ question), kind="stable")[:10]
            assert row[: len(order)].tolist() == allowed[order].tolist()


def test_bytes_hold_recall_while_photos_come_and_go(bytes_store: Store) -> None:
    before = live_of(bytes_store)
    grow(bytes_store, count=900, gone=700)
    model = bytes_store._catalog.model()
    assert model is not None
    hits = bytes_store.search(WORLD.photos(np.random.default_rng(5), 900)[3], 3, fingerprint=PRINT)
    assert hits[0].path.name == "new3.jpg"  # from memory, as float32, above a file of bytes
    refresh(bytes_store._catalog, bytes_store.path / VECTORS_FOLDER, model)
    after = live_of(bytes_store)
    np.testing.assert_array_equal(after.index.file.centroids, before.index.file.centroids)
    np.testing.assert_array_equal(after.index.file.scale.width, before.index.file.scale.width)
    assert len(after.index) == COUNT + 200
    assert after.index.file.facts["recall_at_10_low"] >= lists.RECALL
    hits = bytes_store.search(WORLD.photos(np.random.default_rng(5), 900)[3], 3, fingerprint=PRINT)
    assert (hits[0].path.name, round(hits[0].score, 3)) == ("new3.jpg", 1.0)


def test_a_doctor_compares_bytes_with_the_catalog(bytes_store: Store) -> None:
    model = bytes_store._catalog.model()
    assert model is not None
    for wrong in (False, True):
        if wrong:
            with bytes_store._catalog.begin() as connection:
                other = WORLD.photos(np.random.default_rng(8), 1)[0].astype(np.float16).tobytes()
                connection.execute(vectors.update().where(vectors.c.id == 17).values(mu=other))
        faults = Faults()
        with bytes_store._catalog.begin() as connection:
            seen = with_index(connection, bytes_store.path / VECTORS_FOLDER, model, faults)
        assert (seen.vectors, seen.compared) == (COUNT, COUNT)
        assert faults.doubtful == ({17} if wrong else set())


def test_bytes_without_texts_are_searched_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_index, "CODED_BYTES", 1000)
    make_library(tmp_path / "library", 3000, texts=10, dim=DIM, model=PRINT, world=WORLD)
    with Store.open(tmp_path / "library") as store:
        live = live_of(store)
        assert live.index.file.scale is not None
        assert (store.status().search, store.status().recall_at_10) == ("exact", None)
        unit = {one: mean / np.linalg.norm(mean) for one, mean in means_by_id(store).items()}
        asked = questions(1)[0]
        hits = store.search(asked, 10, fingerprint=PRINT)
        assert [hit.asset_id for hit in hits] == sorted(unit, key=lambda one: -float(unit[one] @ asked))[:10]


def test_without_texts_a_search_is_exact_until_there_are_questions(tmp_path: Path) -> None:
    make_library(tmp_path / "library", 3000, texts=10, dim=DIM, model=PRINT, world=WORLD)
    with Store.open(tmp_path / "library") as store:
        assert live_of(store).index.file.centroids is None
        assert (store.status().search, store.status().recall_at_10) == ("exact", None)
        assert store.wants_questions()
        store.keep_questions(questions(400), PRINT)
        assert not store.wants_questions()
        assert live_of(store).index.file.centroids is not None
        assert (store.status().recall_at_10 or 0) >= lists.RECALL


def test_questions_far_from_everything_are_answered_exactly(tmp_path: Path) -> None:
    """Where so many lists would be needed that looking at everything is no slower, everything is looked at."""
    rng = np.random.default_rng(0)
    index = file_index.FileIndex(DIM)
    index.add(np.arange(3000), rng.standard_normal((3000, DIM)).astype(np.float32))  # no structure at all
    assert lists.planned(index, rng.standard_normal((400, DIM)).astype(np.float32), None) is None


def test_damage_in_a_list_is_noticed_by_the_search_that_meets_it(store: Store) -> None:
    expected = [hit.path for hit in store.search(questions(1)[0], 10, fingerprint=PRINT)]
    (path,) = (store.path / VECTORS_FOLDER).glob("index-*")
    data = bytearray(path.read_bytes())
    data[len(data) // 4 :: 4096] = bytes(b ^ 1 for b in data[len(data) // 4 :: 4096])
    with Store.open(store.path) as again:
        again.search(questions(1)[0], 1, fingerprint=PRINT)
        path.write_bytes(data)
    with Store.open(store.path) as again:
        assert len(set(expected) & {hit.path for hit in again.search(questions(1)[0], 10, fingerprint=PRINT)}) >= 9
        names = [one.name for one in (store.path / VECTORS_FOLDER).iterdir()]
        assert any(".bad-" in name for name in names)


def test_k_means_in_numpy_serves_as_well(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    live = live_of(store)
    monkeypatch.setattr(lists.importlib, "import_module", _missing)
    centroids = lists.trained(live.index, 100)
    assert centroids.shape == (100, DIM)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    probes, found, _ = lists.probes_for(live.index, centroids, questions(), None)
    assert found >= lists.RECALL
    assert probes <= 40


def _missing(name: str) -> object:
    raise ImportError(name)


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
