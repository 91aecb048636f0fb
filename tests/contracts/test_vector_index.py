"""One contract for every backend of `VectorIndex`: the same answers as a search written out in the test."""

from __future__ import annotations

import importlib.util
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.base.errors import DimensionMismatch, LibraryCorrupt
from indexer.vectors import file_index, half_index, mirrors
from indexer.vectors.base import VectorIndex
from indexer.vectors.choose import load_index
from indexer.vectors.exact import ExactIndex
from indexer.vectors.file_index import FileIndex
from indexer.vectors.gpu_index import GpuIndex
from indexer.vectors.half_index import HalfIndex
from indexer.vectors.layout import IndexFile
from indexer.vectors.lists import Lists
from indexer.vectors.mirrors import Gpu, gpu_count

if importlib.util.find_spec("faiss") is not None:
    from tests import gpu_stand_in

Make = Callable[[int], VectorIndex]
HAS_FAISS = importlib.util.find_spec("faiss") is not None
needs_faiss = pytest.mark.skipif(not HAS_FAISS, reason="no FAISS package is installed")


def _halfway(dim: int) -> FileIndex:
    """What was added first lies in a file, what came later in memory."""
    return _Halfway(dim, None)


def _lists(dim: int) -> FileIndex:
    """The same, and the file is cut into seven lists, all of which are looked at: the way of an approximate search."""
    centroids = np.random.default_rng(5).standard_normal((7, dim)).astype(np.float32)
    return _Halfway(dim, Lists(centroids, 7, {}))


class _Halfway(FileIndex):
    def __init__(self, dim: int, lists: Lists | None) -> None:
        super().__init__(dim)
        self._written_in = lists

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        super().add(ids, vectors)
        if self._file is not None or not len(ids):
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index.faiss"
            self.save(path, self._written_in)
            read = FileIndex.load(path)  # held open when its name goes, as under a writer
        self.__dict__.update(read.__dict__)

    def _is_exact(self, k: int, available: int, filtered: bool) -> bool:
        return self._file is None or self._file.centroids is None


def _coded(dim: int) -> FileIndex:
    """The same in bytes, as a large library is kept; what is found is ranked by the vectors that were given."""
    return _Coded(dim)


class _Coded(_Halfway):
    """In lists, of a byte a dimension; the originals are at hand, as those of a library are in its catalog."""

    def __init__(self, dim: int) -> None:
        centroids = np.random.default_rng(5).standard_normal((7, dim)).astype(np.float32)
        super().__init__(dim, Lists(centroids, 7, {}))
        self._originals: dict[int, np.ndarray] = {}

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(file_index, "CODED_BYTES", 0)
            super().add(ids, vectors)
        self._originals.update(zip(np.asarray(ids).tolist(), vectors, strict=True))
        assert not len(ids) or self.file.scale is not None

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        return super().search(queries, k, allowed, self._vectors_of)

    def opened(self, path: Path) -> _Coded:
        """Another index of the same library."""
        other = _Coded(self.dim)
        other.__dict__.update({**FileIndex.load(path).__dict__, "_originals": dict(self._originals)})
        return other

    def _vectors_of(self, ids: np.ndarray) -> np.ndarray:
        return np.stack([self._originals[one] for one in ids.tolist()])


class _HalfwayHeld(HalfIndex, _Halfway):
    """The same with the file's rows in memory at half precision."""

    def __init__(self, dim: int) -> None:
        HalfIndex.__init__(self, dim)
        self._written_in = None

    def _begin(self) -> threading.Thread:
        maker = super()._begin()
        maker.join()
        return maker


class _HalfwayOnGpu(GpuIndex, _Halfway):
    """The same with a copy on a GPU."""

    def __init__(self, dim: int, lists: Lists | None, gpu: Gpu) -> None:
        GpuIndex.__init__(self, dim, gpu=gpu)
        self._written_in = lists


class _CodedOnGpu(_Coded, GpuIndex):
    """A file of bytes with a copy on a GPU of what the bytes stand for."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.gpu = Gpu("flat", after=0)


def _on_gpu(kind: str, lists: int = 0) -> Make:
    """A copy on a GPU, made by the first search; of a file cut into so many `lists`, all of which are looked at."""

    def make(dim: int) -> VectorIndex:
        centroids = np.random.default_rng(5).standard_normal((lists, dim)).astype(np.float32)
        return _HalfwayOnGpu(dim, Lists(centroids, lists, {}) if lists else None, Gpu(kind, after=0))

    return make


BACKENDS = {"exact": ExactIndex, "file-index": FileIndex, "file": _halfway, "lists": _lists, "codes": _coded}
FAISS_BACKENDS = {"half": _HalfwayHeld}
GPU_BACKENDS = {
    "gpu-flat": lambda dim: GpuIndex(dim, gpu=Gpu("flat", after=0)),
    "gpu-flat-file": _on_gpu("flat"),
    "gpu-lists": _on_gpu("lists", lists=7),
    "gpu-pq": _on_gpu("pq", lists=7),
    "gpu-cagra": _on_gpu("cagra"),
    "gpu-codes": _CodedOnGpu,
}


def _as_with_a_gpu() -> AbstractContextManager[object]:
    """A GPU where there is one, else a stand-in for it."""
    return nullcontext() if gpu_count() else gpu_stand_in.installed(cuvs=True)


@pytest.fixture(
    params=[
        *(pytest.param(make, id=name) for name, make in BACKENDS.items()),
        *(pytest.param(make, id=name, marks=needs_faiss) for name, make in (FAISS_BACKENDS | GPU_BACKENDS).items()),
    ]
)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(mirrors, "PQ_LEAST", mirrors.DEPTH)  # so that a few hundred codes miss nothing
    monkeypatch.setattr(mirrors, "PQ_CODES", (8, 4, 2, 1))
    monkeypatch.setattr(half_index, "AFTER", 0)
    monkeypatch.setattr(half_index, "FEWEST", 1)
    monkeypatch.setattr(half_index, "QUERIES", 1000)
    with _as_with_a_gpu() if request.param in GPU_BACKENDS.values() else nullcontext():
        yield request.param


def reference(vectors: dict[int, np.ndarray], query: np.ndarray, k: int) -> list[tuple[int, float]]:
    """Cosine by definition, falling score then rising id."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a.astype(np.float64) @ b.astype(np.float64) / lengths) if lengths else 0.0

    scored = [(key, cosine(query, vector)) for key, vector in vectors.items()]
    return sorted(scored, key=lambda pair: (-np.float32(round(pair[1], 6)), pair[0]))[:k]


def random_vectors(n: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


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

    def test_save_and_load(self, make: Make, tmp_path: Path) -> None:
        vectors = random_vectors(40, 5)
        index = make(5)
        index.add(np.arange(100, 140), vectors)
        index.remove(np.array([110]))
        path = tmp_path / f"index{index.suffix}"
        index.save(path)
        loaded = index.opened(path) if isinstance(index, _Coded) else load_index(path)
        assert (loaded.dim, len(loaded)) == (5, 39)
        for left, right in zip(index.search(vectors, 6), loaded.search(vectors, 6), strict=True):
            np.testing.assert_array_equal(left, right)
        loaded.add(np.array([110]), vectors[10:11])
        assert loaded.search(vectors[10:11], 1)[0].tolist() == [[110]]

    def test_save_and_load_empty(self, make: Make, tmp_path: Path) -> None:
        index = make(5)
        path = tmp_path / f"index{index.suffix}"
        index.save(path)
        assert len(load_index(path)) == 0

    @pytest.mark.parametrize("damage", ["truncate", "garbage", "empty"])
    def test_a_broken_file_is_an_error(self, make: Make, tmp_path: Path, damage: str) -> None:
        index = make(5)
        index.add(np.arange(9), random_vectors(9, 5))
        path = tmp_path / f"index{index.suffix}"
        index.save(path)
        data = path.read_bytes()
        path.write_bytes({"truncate": data[:-40], "garbage": b"\x93NUMPY" + b"\xff" * 200, "empty": b""}[damage])
        with pytest.raises(LibraryCorrupt):
            load_index(path)


@needs_faiss
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_backends_agree_after_any_history(data: st.DataObject, seed: int) -> None:
    with _as_with_a_gpu():
        _agree_after_any_history(data, seed)


def _agree_after_any_history(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    on_gpu = (GPU_BACKENDS[name] for name in ("gpu-flat", "gpu-lists"))
    makes: list[Make] = [ExactIndex, FileIndex, _halfway, _lists, _coded, *on_gpu]
    backends = [make(4) for make in makes]
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


@needs_faiss
def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    import faiss

    faiss.write_index(faiss.IndexFlatL2(4), str(tmp_path / "other.faiss"))
    with pytest.raises(LibraryCorrupt, match="another kind"):
        load_index(tmp_path / "other.faiss")


def _coded_file(path: Path, count: int, dim: int) -> tuple[_Coded, np.ndarray]:
    index, vectors = _coded(dim), random_vectors(count, dim)
    index.add(np.arange(1000, 1000 + count), vectors)
    index.save(path, Lists(index.file.centroids, 7, {}))
    return index, vectors


@needs_faiss
def test_files_of_bytes_are_plain_faiss(tmp_path: Path) -> None:
    """FAISS decodes them to what is decoded here, and nearly to what was put in."""
    import faiss

    index, vectors = _coded_file(tmp_path / "own.faiss", 300, 24)
    assert (tmp_path / "own.faiss").stat().st_size < 300 * (24 + 8 + 8) + 7 * 24 * 4 + 3000
    read = faiss.read_index(str(tmp_path / "own.faiss"))
    assert (type(read), read.ntotal, read.d) == (faiss.IndexIVFScalarQuantizer, 300, 24)
    read.nprobe = 7
    scores, ids = read.search(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 5)
    ours, ours_scores = FileIndex.search(index, vectors, 5)  # without originals, by what the bytes stand for
    np.testing.assert_array_equal(ids, ours)
    np.testing.assert_allclose(scores, ours_scores, atol=1e-5)
    found, exact = index.search(vectors, 5)
    assert found[:, 0].tolist() == list(range(1000, 1300))
    np.testing.assert_allclose(exact[:, 0], 1, atol=1e-6)
    np.testing.assert_allclose(ours_scores, exact, atol=0.02)


def test_bytes_are_copied_from_file_to_file(tmp_path: Path) -> None:
    """A file that is written again and again does not drift: bytes stay bytes, whatever its size has become."""
    index, vectors = _coded_file(tmp_path / "first.faiss", 200, 16)
    again = index.opened(tmp_path / "first.faiss")
    again.remove(np.arange(1100, 1150))
    again.save(tmp_path / "second.faiss", Lists(again.file.centroids, 7, {}))
    second = index.opened(tmp_path / "second.faiss")
    kept = np.setdiff1d(np.arange(1000, 1200), np.arange(1100, 1150))
    assert second.is_coded
    assert sorted(second.ids().tolist()) == kept.tolist()
    for one in kept.tolist():
        ids = np.array([one])
        np.testing.assert_array_equal(second.vectors_of(ids), index.vectors_of(ids))
    scale = index.file.scale
    assert (np.abs(index.vectors_of(ids)[0] - vectors[ids[0] - 1000] / np.linalg.norm(vectors[ids[0] - 1000]))
            <= scale.width / 255 / 2 + 1e-6).all()  # fmt: skip


@needs_faiss
@pytest.mark.parametrize("lists", [False, True])
def test_files_are_plain_faiss(tmp_path: Path, lists: bool) -> None:
    """Any program that knows FAISS opens them and finds the same."""
    import faiss

    index, vectors = (_lists if lists else _halfway)(8), random_vectors(60, 8)
    index.add(np.arange(1000, 1060), vectors)
    index.remove(np.array([1003]))
    index.add(np.array([7]), vectors[3:4])
    index.save(tmp_path / "own.faiss", Lists(index.file.centroids, 7, {}) if lists else None)
    read = faiss.read_index(str(tmp_path / "own.faiss"))
    assert (read.ntotal, read.d) == (60, 8)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores, ids = read.search(unit, 5)
    expected_ids, expected = index.search(vectors, 5)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("make_index", [_halfway, _lists, _coded])
def test_any_flipped_bit_is_noticed_when_it_is_looked_at(tmp_path: Path, make_index: Make) -> None:
    index, vectors = make_index(8), random_vectors(300, 8)
    index.add(np.arange(300), vectors)
    path = tmp_path / "own.faiss"
    index.save(path, None if make_index is _halfway else Lists(index.file.centroids, 7, {}))
    data = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(data), 60).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        with pytest.raises(LibraryCorrupt):
            IndexFile.open(path).verify()
    path.write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 8 :])
    with pytest.raises(LibraryCorrupt):
        IndexFile.open(path)
    path.write_bytes(data)
    IndexFile.open(path).verify()
