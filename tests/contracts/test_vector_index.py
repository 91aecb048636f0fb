"""One contract for every backend of `VectorIndex`: the same answers as a search written out in the test."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.base.errors import DimensionMismatch, LibraryCorrupt
from indexer.vectors import faiss_index, form, gpu
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_index import FaissIndex, Probing
from indexer.vectors.gpu import Gpu, GpuIndex, gpu_count
from indexer.vectors.protocol import VectorIndex
from indexer.vectors.rows import Rows, write_rows

if importlib.util.find_spec("faiss") is not None:
    from tests import gpu_stand_in

Over = Callable[[Rows], VectorIndex]
HAS_FAISS = importlib.util.find_spec("faiss") is not None
needs_faiss = pytest.mark.skipif(not HAS_FAISS, reason="no FAISS package is installed")
LISTS = 7


class Library:
    """An index as a library has it: what was added first lies in a file, what came later in memory."""

    def __init__(self, dim: int, over: Over, *, in_file: bool) -> None:
        self.over, self.in_file = over, in_file
        self.index = over(Rows(dim))

    def __len__(self) -> int:
        return len(self.index.rows)

    def ids(self) -> np.ndarray:
        return self.index.rows.ids[self.index.rows.alive]

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        if not self.in_file or not len(ids):
            self.index.rows.add(ids, vectors)
            return
        self.in_file = False
        self.index.rows.add(ids, vectors)
        self.index = self.saved()

    def remove(self, ids: np.ndarray) -> int:
        return self.index.rows.remove(ids)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        return self.index.search(queries, k, allowed)

    def saved(self) -> VectorIndex:
        """The same, out of a file."""
        rows = self.index.rows
        ids = np.sort(rows.ids[rows.alive])
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder) / "index.f16", [rows.vectors_of(ids)])
            return self.over(Rows.open(Path(folder) / "index.f16", ids, rows.dim))  # mapped when its name goes


def ivf(rows: Rows) -> VectorIndex:
    """Seven lists, all of which are looked at, and everything is ranked again: an approximate search that misses
    nothing."""
    if not len(rows.ids):
        return ExactIndex(rows)
    faiss = faiss_index.load_faiss()
    quantizer = faiss.IndexFlatIP(rows.dim)
    quantizer.add(np.random.default_rng(5).standard_normal((LISTS, rows.dim)).astype(np.float32))
    empty = form.new_ivf(quantizer, rows.dim, LISTS)
    empty.train(np.random.default_rng(6).standard_normal((50, rows.dim)).astype(np.float32))
    index = FaissIndex(rows, empty, Probing(LISTS, 10_000))
    index.absorb()
    return index


def on_gpu(kind: str, over: Over) -> Over:
    """A copy on a GPU, made by the first search."""
    return lambda rows: GpuIndex(over(rows), Gpu(kind, after=0))


BACKENDS: dict[str, Over] = {"exact": ExactIndex}
FAISS_BACKENDS: dict[str, Over] = {"faiss-flat": FaissIndex, "faiss-ivf": ivf}
GPU_BACKENDS: dict[str, Over] = {
    "gpu-flat": on_gpu("flat", ExactIndex),
    "gpu-flat-of-lists": on_gpu("flat", ivf),
    "gpu-lists": on_gpu("lists", ivf),
    "gpu-cagra": on_gpu("cagra", ExactIndex),
}
Make = Callable[[int], Library]


def _as_with_a_gpu() -> AbstractContextManager[object]:
    """A GPU where there is one, else a stand-in for it."""
    return nullcontext() if gpu_count() else gpu_stand_in.installed(cuvs=True)


@pytest.fixture(
    params=[
        *(pytest.param(over, id=name) for name, over in BACKENDS.items()),
        *(pytest.param(over, id=name, marks=needs_faiss) for name, over in (FAISS_BACKENDS | GPU_BACKENDS).items()),
    ]
)
def over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Over]:
    for module in (faiss_index, gpu):
        monkeypatch.setattr(module, "EXACT_ROWS", 0)
        monkeypatch.setattr(module, "SCANNED_SHARE", 0)
    with _as_with_a_gpu() if request.param in GPU_BACKENDS.values() else nullcontext():
        yield request.param


@pytest.fixture(params=["memory", "file"])
def make(over: Over, request: pytest.FixtureRequest) -> Make:
    return lambda dim: Library(dim, over, in_file=request.param == "file")


def reference(vectors: dict[int, np.ndarray], query: np.ndarray, k: int) -> list[tuple[int, float]]:
    """Cosine by definition, falling score then rising id."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a.astype(np.float64) @ b.astype(np.float64) / lengths) if lengths else 0.0

    scored = [(key, cosine(query, vector)) for key, vector in vectors.items()]
    return sorted(scored, key=lambda pair: (-np.float32(round(pair[1], 6)), pair[0]))[:k]


def random_vectors(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """At half precision, as the catalog has them."""
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float16).astype(np.float32)


class TestVectorIndex:
    def test_finds_what_the_definition_says(self, make: Make) -> None:
        vectors, queries = random_vectors(300, 24), random_vectors(7, 24, seed=1)
        ids = np.random.default_rng(2).permutation(10_000)[:300].astype(np.int64)
        index = make(24)
        index.add(ids, vectors)
        found, scores = index.search(queries, 10)
        assert found.dtype == np.int64
        assert scores.dtype == np.float32
        for row, query in enumerate(queries):
            expected = reference(dict(zip(ids.tolist(), vectors, strict=True)), query, 10)
            assert found[row].tolist() == [key for key, _ in expected]
            np.testing.assert_allclose(scores[row], [score for _, score in expected], atol=1e-6)

    def test_scores_do_not_depend_on_lengths(self, make: Make) -> None:
        index = make(3)
        index.add(np.array([1, 2]), np.array([[100, 0, 0], [0.001, 0.001, 0]], np.float32))
        _, scores = index.search(np.array([[7, 0, 0]], np.float32), 2)
        np.testing.assert_allclose(scores[0], [1, np.sqrt(0.5)], atol=1e-6)

    def test_a_vector_of_zeros_scores_zero(self, make: Make) -> None:
        index = make(2)
        index.add(np.array([5, 6, 7]), np.array([[0, 0], [1, 0], [-1, 0]], np.float32))
        ids, scores = index.search(np.array([[1, 0]], np.float32), 3)
        assert ids[0].tolist() == [6, 5, 7]
        assert scores[0].tolist() == [1, 0, -1]
        _, scores = index.search(np.zeros((1, 2), np.float32), 3)
        assert scores[0].tolist() == [0, 0, 0]

    def test_pads_beyond_what_there_is(self, make: Make) -> None:
        index = make(2)
        index.add(np.array([3]), np.array([[1, 0]], np.float32))
        ids, scores = index.search(np.array([[1, 0], [0, 1]], np.float32), 4)
        assert ids.tolist() == [[3, -1, -1, -1], [3, -1, -1, -1]]
        assert np.isneginf(scores[:, 1:]).all()

    @pytest.mark.filterwarnings("error")
    def test_what_is_no_number_scores_zero_and_hides_nothing(self, make: Make) -> None:
        vectors = random_vectors(400, 8)
        vectors[::3], vectors[1::3, 2] = np.nan, np.inf
        index = make(8)
        index.add(np.arange(400), vectors)
        queries = random_vectors(3, 8, seed=1)
        ids, scores = index.search(queries, 200)
        assert np.isfinite(scores).all()
        sound = {number: vectors[number] for number in range(2, 400, 3)}
        for row, query in enumerate(queries):
            best = [number for number, score in reference(sound, query, 40) if score > 0]
            assert ids[row][: len(best)].tolist() == best
        _, scores = index.search(np.full((1, 8), np.nan, np.float32), 5)
        assert scores.tolist() == [[0] * 5]

    def test_empty(self, make: Make) -> None:
        index = make(2)
        assert len(index) == 0
        assert index.ids().tolist() == []
        assert index.remove(np.array([1])) == 0
        ids, scores = index.search(np.ones((2, 2), np.float32), 3)
        assert ids.shape == scores.shape == (2, 3)
        assert (ids == -1).all()
        index.add(np.empty(0, np.int64), np.empty((0, 2), np.float32))
        assert len(index) == 0
        assert index.search(np.empty((0, 2), np.float32), 3)[0].shape == (0, 3)

    def test_ties_come_by_rising_id_also_at_the_cut(self, make: Make) -> None:
        index = make(4)
        ids = np.random.default_rng(0).permutation(500).astype(np.int64)
        index.add(ids, np.tile(np.array([[1, 2, 3, 4]], np.float32), (500, 1)))
        index.add(np.array([900]), np.array([[4, 3, 2, 1]], np.float32))
        found, scores = index.search(np.array([[1, 2, 3, 4]], np.float32), 5)
        assert found[0].tolist() == [0, 1, 2, 3, 4]
        assert len(set(scores[0].tolist())) == 1

    def test_only_allowed_ids(self, make: Make) -> None:
        vectors = random_vectors(400, 8)
        index = make(8)
        index.add(np.arange(400), vectors)
        allowed = np.array([399, 7, 123, 12345])
        ids, _ = index.search(vectors[:3], 5, allowed)
        expected = reference({key: vectors[key] for key in (7, 123, 399)}, vectors[0], 5)
        assert ids[0].tolist() == [key for key, _ in expected] + [-1, -1]
        nothing, scores = index.search(vectors[:1], 5, np.empty(0, np.int64))
        assert (nothing == -1).all()
        assert np.isneginf(scores).all()

    def test_removal(self, make: Make) -> None:
        vectors = random_vectors(50, 6)
        index = make(6)
        index.add(np.arange(50), vectors)
        assert index.remove(np.array([0, 10, 49, 777])) == 3
        assert len(index) == 47
        assert index.remove(np.array([10])) == 0
        ids, _ = index.search(vectors[10:11], 50)
        assert {0, 10, 49}.isdisjoint(ids[0].tolist())
        assert (ids[0] >= 0).sum() == 47

    def test_adding_again_replaces(self, make: Make) -> None:
        index = make(2)
        index.add(np.array([1, 2]), np.array([[1, 0], [0, 1]], np.float32))
        index.add(np.array([1]), np.array([[-1, 0]], np.float32))
        assert sorted(index.ids().tolist()) == [1, 2]
        ids, scores = index.search(np.array([[1, 0]], np.float32), 2)
        assert ids[0].tolist() == [2, 1]
        assert scores[0].tolist() == [0, -1]

    def test_repeated_or_negative_ids_are_refused(self, make: Make) -> None:
        index = make(2)
        for ids in ([1, 1], [-1, 2], [1]):
            with pytest.raises(ValueError):
                index.add(np.array(ids), np.ones((2, 2), np.float32))
        assert len(index) == 0

    def test_other_dimensions_are_refused(self, make: Make) -> None:
        index = make(3)
        with pytest.raises(DimensionMismatch, match="d=3"):
            index.add(np.array([1]), np.ones((1, 2), np.float32))
        with pytest.raises(DimensionMismatch):
            index.search(np.ones((1, 4), np.float32), 1)

    def test_large_ids_survive(self, make: Make) -> None:
        big = 2**62 + 12345
        index = make(2)
        index.add(np.array([big]), np.array([[1, 1]], np.float32))
        assert index.search(np.array([[1, 1]], np.float32), 1)[0].tolist() == [[big]]

    def test_many_queries_equal_one_by_one(self, make: Make) -> None:
        vectors, queries = random_vectors(200, 16), random_vectors(300, 16, seed=3)
        index = make(16)
        index.add(np.arange(200), vectors)
        together = index.search(queries, 4)
        for row in (0, 100, 299):
            alone = index.search(queries[row : row + 1], 4)
            np.testing.assert_array_equal(together[0][row], alone[0][0])
            np.testing.assert_array_equal(together[1][row], alone[1][0])

    def test_a_file_of_them_answers_the_same(self, make: Make) -> None:
        vectors = random_vectors(40, 5)
        index = make(5)
        index.add(np.arange(100, 140), vectors)
        index.remove(np.array([110]))
        loaded = index.saved()
        assert (loaded.rows.dim, len(loaded.rows)) == (5, 39)
        for left, right in zip(index.search(vectors, 6), loaded.search(vectors, 6), strict=True):
            np.testing.assert_array_equal(left, right)
        loaded.rows.add(np.array([110]), vectors[10:11])
        assert loaded.search(vectors[10:11], 1)[0].tolist() == [[110]]

    def test_an_empty_file(self, make: Make) -> None:
        assert len(make(5).saved().rows) == 0


@pytest.mark.parametrize("damage", ["truncate", "longer", "empty"])
def test_a_file_of_rows_that_has_another_size_is_an_error(tmp_path: Path, damage: str) -> None:
    write_rows(tmp_path / "index.f16", [random_vectors(9, 5).astype(np.float16)])
    data = (tmp_path / "index.f16").read_bytes()
    (tmp_path / "index.f16").write_bytes({"truncate": data[:-40], "longer": data + b"x", "empty": b""}[damage])
    with pytest.raises(LibraryCorrupt):
        Rows.open(tmp_path / "index.f16", np.arange(9), 5)


@needs_faiss
@pytest.mark.parametrize("damage", ["truncate", "garbage", "empty", "another", "fewer"])
def test_a_broken_file_of_faiss_is_an_error(tmp_path: Path, damage: str) -> None:
    import faiss

    rows = Rows(8)
    rows.add(np.arange(300), random_vectors(300, 8))
    path = tmp_path / "index.faiss"
    faiss.write_index(ivf(rows).faiss, str(path))
    assert FaissIndex.load(path.read_bytes(), rows, Probing(7, 300)).search(random_vectors(1, 8), 3)[0].shape == (1, 3)
    data = path.read_bytes()
    path.write_bytes({"truncate": data[:-40], "garbage": b"\x93NUMPY" + b"\xff" * 200, "empty": b""}.get(damage, data))
    if damage == "another":
        faiss.write_index(faiss.IndexFlatL2(8), str(path))
    if damage == "fewer":
        rows.add(np.array([300]), random_vectors(1, 8))
    with pytest.raises(LibraryCorrupt):
        FaissIndex.load(path.read_bytes(), rows, Probing(7, 300))


@needs_faiss
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_backends_agree_after_any_history(data: st.DataObject, seed: int) -> None:
    with _as_with_a_gpu(), pytest.MonkeyPatch.context() as patch:
        for module in (faiss_index, gpu):
            patch.setattr(module, "EXACT_ROWS", 0)
            patch.setattr(module, "SCANNED_SHARE", 0)
        _agree_after_any_history(data, seed)


def _agree_after_any_history(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    overs = [*BACKENDS.values(), *FAISS_BACKENDS.values(), *(GPU_BACKENDS[name] for name in ("gpu-flat", "gpu-lists"))]
    backends = [Library(4, over, in_file=in_file) for over in overs for in_file in (False, True)]
    query = rng.integers(-2, 3, (2, 4)).astype(np.float32)
    for step in data.draw(st.lists(st.sampled_from(["add", "remove"]), max_size=6)):
        ids = rng.choice(30, size=int(rng.integers(0, 12)), replace=False).astype(np.int64)
        vectors = rng.integers(-2, 3, (len(ids), 4)).astype(np.float32)  # small integers: plenty of ties
        for index in backends:
            if step == "add":
                index.add(ids, vectors)
            else:
                index.remove(ids)
            index.search(query, 1)  # a copy on a GPU is made here, and what changes comes on top of it
    allowed = rng.choice(30, size=15, replace=False).astype(np.int64) if data.draw(st.booleans()) else None
    k = data.draw(st.integers(1, 40))
    truth, *others = (index.search(query, k, allowed) for index in backends)
    for found in others:
        np.testing.assert_array_equal(truth[0], found[0])
        np.testing.assert_array_equal(truth[1], found[1])
