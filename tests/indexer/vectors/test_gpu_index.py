"""Search on a GPU, through a stand-in: what it answers, what the CPU answers, and what happens when it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faiss")

from indexer.base.errors import LibraryCorrupt
from indexer.vectors import choose, file_index, gpu_index, mirrors
from indexer.vectors.file_index import FileIndex
from indexer.vectors.gpu_index import GpuIndex
from indexer.vectors.lists import Lists, lists_for, trained
from indexer.vectors.mirrors import Gpu, Kind, Rows, chosen
from tests import gpu_stand_in
from tests.bench.synthetic import World

DIM, COUNT, PROBES = 32, 4000, 12
WORLD = World.of(DIM, clusters=40)
Calls = list[tuple[str, int, int]]


@pytest.fixture
def calls() -> Iterator[Calls]:
    with gpu_stand_in.installed() as asked:
        yield asked


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same vectors in one list and in many."""
    folder = tmp_path_factory.mktemp("files")
    index = FileIndex(DIM)
    index.add(np.arange(100, 100 + COUNT), WORLD.photos(np.random.default_rng(0), COUNT))
    index.save(folder / "flat.faiss")
    index.save(folder / "lists.faiss", Lists(trained(index, lists_for(COUNT)), PROBES, {}))
    return {path.stem: path for path in folder.iterdir()}


def questions(count: int = 40, seed: int = 7) -> np.ndarray:
    return WORLD.texts(np.random.default_rng(seed), count)


def pair(path: Path, kind: str = "auto") -> tuple[FileIndex, GpuIndex]:
    """The truth, and an index with a copy from the first search on."""
    return FileIndex.load(path), GpuIndex.load(path, Gpu(kind, after=0))  # type: ignore[arg-type]


def same(truth: FileIndex, index: GpuIndex, k: int = 10, allowed: np.ndarray | None = None) -> None:
    expected, found = truth.search(questions(), k, allowed), index.search(questions(), k, allowed)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize(("file", "kind"), [("flat", "flat"), ("lists", "lists"), ("flat", "auto")])
def test_the_copy_answers_as_the_cpu_does(files: dict[str, Path], calls: Calls, file: str, kind: str) -> None:
    truth, index = pair(files[file], kind)
    same(truth, index)
    assert {name for name, _, _ in calls} == {file if kind == "auto" else kind}
    assert index._mirror is not None
    assert sum(count for _, count, _ in calls) == 40


def test_flat_is_exact_where_the_cpu_looks_at_lists(files: dict[str, Path], calls: Calls) -> None:
    truth, index = pair(files["lists"], "flat")
    nearest = truth._all_ids()[truth.search_exactly(questions(), 10, None)]
    assert [set(row) for row in index.search(questions(), 10)[0]] == [set(row) for row in nearest]
    assert {name for name, _, _ in calls} == {"flat"}


def test_more_results_than_a_gpu_gives_come_from_the_cpu(files: dict[str, Path], calls: Calls) -> None:
    truth, index = pair(files["flat"])
    same(truth, index, k=mirrors.DEPTH - file_index.PROBES_PER_QUERY_TO_SCAN * 16)
    assert calls
    calls.clear()
    same(truth, index, k=mirrors.DEPTH + 1)
    assert not calls


def test_more_lists_than_a_gpu_takes_are_the_cpus(
    files: dict[str, Path], calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_stand_in, "LIMIT", PROBES + 40)
    monkeypatch.setattr(gpu_index, "DEPTH", PROBES + 40)
    monkeypatch.setattr(file_index, "EXACT_ROWS", 10)
    truth, index = pair(files["lists"], "lists")
    third, tenth = truth.ids()[::3], truth.ids()[::10]
    same(truth, index, 3, third)
    calls.clear()
    same(truth, index, 3, tenth)  # ten times the lists, to look at as many allowed vectors
    assert not calls


def test_codes_find_nearly_what_the_lists_hold_and_score_it_exactly(
    files: dict[str, Path], calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "PQ_CODES", (8,))
    monkeypatch.setattr(mirrors, "PQ_SAMPLE", 1000)
    truth, index = pair(files["lists"], "pq")
    expected, found = truth.search(questions(), 10), index.search(questions(), 10)
    assert {name for name, _, _ in calls} == {"pq"}
    assert all(k == mirrors.PQ_DEEPER * 42 for _, _, k in calls[:1])
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(expected[0], found[0], strict=True)])
    assert recall >= 0.98
    unit = questions() / np.linalg.norm(questions(), axis=1, keepdims=True)
    rows = truth.gather(np.stack([truth._positions(row) for row in found[0]]))
    np.testing.assert_allclose(found[1], np.einsum("md,mkd->mk", unit, rows), atol=1e-6)


def test_a_graph_returns_a_row_once(files: dict[str, Path]) -> None:
    with gpu_stand_in.installed(cuvs=True) as calls:
        truth, index = pair(files["flat"], "cagra")
        same(truth, index)
        assert [(name, k) for name, _, k in calls] == [("cagra", 60)]  # 42 and more, for what is met twice


@pytest.mark.parametrize("kind", ["flat", "lists"])
def test_changes_lie_on_top_of_the_copy(
    files: dict[str, Path], calls: Calls, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, index = pair(files[kind], kind)
    index.search(questions(), 1)
    copy = index._mirror
    new = WORLD.photos(np.random.default_rng(3), 60)
    near = truth.search(questions(), 3)[0]
    for one in (truth, index):
        one.add(np.arange(50_000, 50_060), new)
        one.remove(near[:, 0])
        one.add(np.unique(near[:20, 1]), -questions(len(np.unique(near[:20, 1]))))  # replaced
        one.remove(np.arange(50_000, 50_010))
    same(truth, index)
    assert index._mirror is copy
    found, _ = index.search(new[20:25], 1)
    assert found[:, 0].tolist() == list(range(50_020, 50_025))
    monkeypatch.setattr(gpu_index, "FRESH_ROWS", 30)
    same(truth, index)
    assert index._mirror is not copy
    assert index._covered == len(index._all_ids())
    index.remove(np.array([50_030]))
    truth.remove(np.array([50_030]))
    assert index._mirror is None  # what lay behind it has moved up
    calls.clear()
    same(truth, index)
    assert calls


def test_an_index_without_a_file_is_copied_whole(calls: Calls) -> None:
    truth, index = FileIndex(DIM), GpuIndex(DIM, gpu=Gpu(after=0))
    assert index.search(questions(2), 3)[0].tolist() == [[-1] * 3] * 2
    vectors = WORLD.photos(np.random.default_rng(0), 500)
    for one in (truth, index):
        one.add(np.arange(500), vectors)
    same(truth, index)
    assert index._covered == 500
    for one in (truth, index):
        one.remove(np.arange(0, 500, 2))
    same(truth, index)
    same(truth, index, k=300)


@pytest.mark.parametrize("kind", ["flat", "lists"])
def test_wide_filters_are_the_copys_and_narrow_ones_the_cpus(
    files: dict[str, Path], calls: Calls, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_index, "EXACT_ROWS", 100)
    truth, index = pair(files[kind], kind)
    same(truth, index, 10, truth.ids()[::2])
    assert calls
    calls.clear()
    same(truth, index, 10, truth.ids()[:40])
    assert not calls


def test_a_filter_that_leaves_one_query_short_is_made_up_for(files: dict[str, Path], calls: Calls) -> None:
    """Half of the vectors are allowed, but of those near the first question none is."""
    truth, index = pair(files["flat"], "flat")
    first = truth.search(questions(1), COUNT // 2)[0][0]
    allowed = np.setdiff1d(truth.ids(), first)
    same(truth, index, 10, allowed)
    assert calls


def test_no_room_on_the_gpu_is_one_warning(files: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with gpu_stand_in.installed(memory_bytes=1000) as calls:
        truth, index = pair(files["flat"])
        with caplog.at_level(logging.WARNING):
            same(truth, index)
            same(truth, index)
        assert not calls
    (record,) = caplog.records
    assert "out of memory" in record.message
    assert "searching on the CPU" in record.message


def test_a_search_that_fails_there_is_answered_here(
    files: dict[str, Path], calls: Calls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    truth, index = pair(files["flat"])
    same(truth, index)

    def fail(*_: object) -> None:
        raise RuntimeError("cudaMalloc error out of memory\nand more")

    monkeypatch.setattr(index._mirror, "search", fail)
    same(truth, index)
    same(truth, index)
    assert [record.message.endswith("out of memory") for record in caplog.records] == [True]


def test_a_damaged_file_is_noticed_when_it_is_copied(files: dict[str, Path], tmp_path: Path, calls: Calls) -> None:
    data = bytearray(files["lists"].read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.faiss").write_bytes(data)
    with pytest.raises(LibraryCorrupt):
        GpuIndex.load(tmp_path / "bad.faiss", Gpu(after=0)).search(questions(1), 1)


def test_few_questions_are_not_worth_a_copy(files: dict[str, Path], calls: Calls) -> None:
    index = GpuIndex.load(files["flat"], Gpu(after=20))
    for _ in range(2):
        index.search(questions(10), 3)
        assert not calls
    index.search(questions(1), 3)
    assert calls


def test_rows_that_do_not_fit_into_memory_are_read_from_the_file(
    files: dict[str, Path], calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_index, "HELD_SHARE", 0.0)
    truth, index = pair(files["flat"])
    same(truth, index)
    assert index._held is None
    assert calls


def rows_of(count: int, lists: bool) -> Rows:
    """Of 256 dimensions, without the memory they would take."""
    vectors = np.broadcast_to(np.float32(0), (count, 256))
    return Rows(vectors, np.zeros((4, 256), np.float32) if lists else None, None)


@pytest.mark.parametrize(
    ("count", "lists", "memory_gb", "expected"),
    [
        (1_000_000, False, 80, "flat"),
        (1_000_000, True, 80, "flat"),
        (10_000_000, True, 80, "lists"),
        (10_000_000, False, 80, "flat"),
        (1_000_000, True, 1, "pq"),
        (1_000_000, False, 1, None),
        (100_000_000, True, 80, "pq"),
        (1_000_000_000, True, 80, None),
        (10_000_000, True, 0, "lists"),
    ],
)
def test_the_form_follows_from_the_size(count: int, lists: bool, memory_gb: int, expected: Kind | None) -> None:
    assert chosen(Gpu(), rows_of(count, lists), memory_gb * 10**9) == expected


def test_a_form_that_cannot_be_had_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen(Gpu("lists"), rows_of(1000, lists=True), 0) == "lists"
    assert not caplog.records
    assert chosen(Gpu("pq"), rows_of(1000, lists=False), 0) == "flat"
    assert chosen(Gpu("cagra"), rows_of(1000, lists=False), 0) == "flat"  # this FAISS has no cuVS
    assert ["'pq'" in caplog.messages[0], "'cagra'" in caplog.messages[1]] == [True, True]


def test_without_a_gpu_nothing_is_said(files: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    if mirrors.gpu_count():
        pytest.skip("there is one")
    assert mirrors.memory_bytes() == 0
    truth, index = pair(files["flat"])
    same(truth, index)
    assert not caplog.records


def test_who_gets_a_gpu(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def uses(device: choose.Device) -> Gpu | None:
        return getattr(choose.load_index(files["flat"], device), "gpu", None)

    monkeypatch.setattr(choose, "DRIVER", tmp_path / "none")
    assert [uses(device) for device in ("auto", "cpu", Gpu("flat"))] == [None] * 3
    assert uses("cuda") == Gpu(after=0)
    assert uses(Gpu("flat", after=0)) == Gpu("flat", after=0)
    monkeypatch.setattr(choose, "DRIVER", tmp_path)
    assert [uses(device) for device in ("auto", "cpu", Gpu("flat"))] == [Gpu(), None, Gpu("flat")]
    assert isinstance(choose.new_index(4, "auto"), GpuIndex)
    assert choose.backend() == ("faiss-gpu" if mirrors.gpu_count() else "numpy")
    with gpu_stand_in.installed():
        assert choose.backend() == "faiss-gpu"
        assert choose.backend("cpu") == "numpy"
