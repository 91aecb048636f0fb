"""Search on a GPU, through a stand-in: what it answers, what the CPU answers, and what happens when it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faiss")

from indexer.vectors import choose, faiss_index, form, gpu
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_index import FaissIndex, Probing
from indexer.vectors.gpu import Gpu, GpuIndex, Kind, chosen
from indexer.vectors.rows import Rows
from tests import gpu_stand_in
from tests.bench.synthetic import World

DIM, COUNT, PROBES = 32, 4000, 12
WORLD = World.of(DIM, clusters=40)
VECTORS = WORLD.photos(np.random.default_rng(0), COUNT)
Calls = list[tuple[str, int, int]]


@pytest.fixture
def calls() -> Iterator[Calls]:
    with gpu_stand_in.installed() as asked:
        yield asked


def rows() -> Rows:
    held = Rows(DIM)
    held.add(np.arange(100, 100 + COUNT), VECTORS)
    return held


def in_lists() -> FaissIndex:
    """Few lists are looked at, and what they hold is ranked by the rows, all of it."""
    index = form.trained(rows())
    index.probing = Probing(PROBES, COUNT)
    return index


def questions(count: int = 40, seed: int = 7) -> np.ndarray:
    return WORLD.texts(np.random.default_rng(seed), count)


def pair(kind: str = "auto", *, lists: bool = False) -> tuple[ExactIndex | FaissIndex, GpuIndex]:
    """The truth, and an index with a copy from the first search on."""
    make = in_lists if lists else lambda: ExactIndex(rows())
    return make(), GpuIndex(make(), Gpu(kind, after=0))  # type: ignore[arg-type]


def same(truth: ExactIndex | FaissIndex, index: GpuIndex, k: int = 10, allowed: np.ndarray | None = None) -> None:
    expected, found = truth.search(questions(), k, allowed), index.search(questions(), k, allowed)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize(("lists", "kind"), [(False, "flat"), (True, "lists"), (True, "pq"), (False, "auto")])
def test_the_copy_answers_as_the_cpu_does(calls: Calls, lists: bool, kind: str) -> None:
    truth, index = pair(kind, lists=lists)
    same(truth, index)
    assert {name for name, _, _ in calls} == {"lists" if lists else "flat"}
    assert index.kind is not None
    assert sum(count for _, count, _ in calls) == 40


def test_flat_is_exact_where_the_cpu_looks_at_lists(calls: Calls) -> None:
    truth, index = pair("flat", lists=True)
    assert isinstance(truth, FaissIndex)
    same(truth.exact, index)  # type: ignore[arg-type]
    assert {name for name, _, _ in calls} == {"flat"}


def test_more_results_than_a_gpu_gives_come_from_the_cpu(calls: Calls) -> None:
    truth, index = pair("flat")
    same(truth, index, k=gpu.MOST - 64)
    assert calls
    calls.clear()
    same(truth, index, k=gpu.MOST + 1)
    assert not calls


def test_more_lists_than_a_gpu_takes_are_the_cpus(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_stand_in, "LIMIT", 9 * PROBES)
    monkeypatch.setattr(gpu, "MOST", 9 * PROBES)
    for module in (faiss_index, gpu):
        monkeypatch.setattr(module, "EXACT_ROWS", 10)
    truth, index = pair("lists", lists=True)
    half, tenth = truth.rows.ids[::2].copy(), truth.rows.ids[::10].copy()
    same(truth, index, 1, half)
    assert calls
    calls.clear()
    same(truth, index, 1, tenth)  # ten times the lists, to look at as many allowed vectors
    assert not calls


def test_a_graph_returns_a_row_once() -> None:
    with gpu_stand_in.installed(cuvs=True) as calls:
        truth, index = pair("cagra")
        same(truth, index)
        assert [(name, k) for name, _, k in calls][:1] == [("cagra", 60)]  # 42 and more, for what is met twice


@pytest.mark.parametrize("lists", [False, True])
def test_changes_lie_on_top_of_the_copy(calls: Calls, lists: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, index = pair("lists" if lists else "flat", lists=lists)
    index.search(questions(), 1)
    copy = index._copy
    new = WORLD.photos(np.random.default_rng(3), 60)
    near = truth.search(questions(), 3)[0]
    for one in (truth, index):
        one.rows.add(np.arange(50_000, 50_060), new)
        one.rows.remove(near[:, 0])
        one.rows.add(np.unique(near[:20, 1]), -questions(len(np.unique(near[:20, 1]))))  # replaced
        one.rows.remove(np.arange(50_000, 50_010))
    same(truth, index)
    assert index._copy is copy
    found, _ = index.search(new[20:25], 1)
    assert found[:, 0].tolist() == list(range(50_020, 50_025))
    monkeypatch.setattr(gpu, "FRESH_ROWS", 30)
    same(truth, index)
    assert index._copy is not copy
    assert index._covered == len(index.rows.ids)
    for one in (truth, index):
        one.rows.remove(np.array([50_030]))
    calls.clear()
    same(truth, index)
    assert calls


def test_without_a_file_there_is_a_copy_too(calls: Calls) -> None:
    truth, index = ExactIndex(Rows(DIM)), GpuIndex(ExactIndex(Rows(DIM)), Gpu(after=0))
    assert index.search(questions(2), 3)[0].tolist() == [[-1] * 3] * 2
    for one in (truth, index):
        one.rows.add(np.arange(500), VECTORS[:500])
    same(truth, index)
    assert index._covered == 500
    for one in (truth, index):
        one.rows.remove(np.arange(0, 500, 2))
    same(truth, index)
    same(truth, index, k=300)


@pytest.mark.parametrize("lists", [False, True])
def test_wide_filters_are_the_copys_and_narrow_ones_the_cpus(
    calls: Calls, lists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (faiss_index, gpu):
        monkeypatch.setattr(module, "EXACT_ROWS", 100)
    truth, index = pair("lists" if lists else "flat", lists=lists)
    same(truth, index, 10, truth.rows.ids[::2].copy())
    assert calls
    calls.clear()
    same(truth, index, 10, truth.rows.ids[:40].copy())
    assert not calls


def test_a_filter_that_leaves_one_query_short_is_made_up_for(calls: Calls) -> None:
    """Half of the vectors are allowed, but of those near the first question none is."""
    truth, index = pair("flat")
    first = truth.search(questions(1), COUNT // 2)[0][0]
    same(truth, index, 10, np.setdiff1d(truth.rows.ids, first))
    assert calls


def test_no_room_on_the_gpu_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with gpu_stand_in.installed(memory_bytes=1000) as calls:
        truth, index = pair("flat")
        with caplog.at_level(logging.WARNING):
            same(truth, index)
            same(truth, index)
        assert not calls
    (record,) = caplog.records
    assert "out of memory" in record.message
    assert "searching on the CPU" in record.message


def test_a_search_that_fails_there_is_answered_here(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    truth, index = pair("flat")
    same(truth, index)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("cudaMalloc error out of memory\nand more")

    monkeypatch.setattr(index._copy, "search", fail)
    same(truth, index)
    same(truth, index)
    assert [record.message.endswith("out of memory") for record in caplog.records] == [True]


def test_few_questions_are_not_worth_a_copy(calls: Calls) -> None:
    index = GpuIndex(ExactIndex(rows()), Gpu(after=20))
    for _ in range(2):
        index.search(questions(10), 3)
        assert not calls
    index.search(questions(1), 3)
    assert calls


@pytest.mark.parametrize(
    ("count", "lists", "memory_gb", "expected"),
    [
        (1_000_000, False, 80, "flat"),
        (1_000_000, True, 80, "flat"),
        (10_000_000, True, 80, "flat"),
        (20_000_000, True, 80, "lists"),
        (20_000_000, False, 80, "flat"),
        (1_000_000, True, 1, None),
        (100_000_000, True, 80, None),
        (20_000_000, True, 0, "lists"),
    ],
)
def test_the_form_follows_from_the_size(count: int, lists: bool, memory_gb: int, expected: Kind | None) -> None:
    assert chosen(Gpu(), 2 * 256 * count, lists, memory_gb * 10**9) == expected


def test_a_form_that_cannot_be_had_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen(Gpu("lists"), 1000, True, 0) == "lists"
    assert chosen(Gpu("pq"), 1000, True, 0) == "lists"  # what there was once is taken for what comes nearest
    assert not caplog.records
    assert chosen(Gpu("lists"), 1000, False, 0) == "flat"
    assert chosen(Gpu("cagra"), 1000, False, 0) == "flat"  # this FAISS has no cuVS
    assert ["'lists'" in caplog.messages[0], "'cagra'" in caplog.messages[1]] == [True, True]


def test_without_a_gpu_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    if gpu.gpu_count():
        pytest.skip("there is one")
    assert gpu.memory_bytes() == 0
    truth, index = pair("flat")
    same(truth, index)
    assert not caplog.records


def test_who_gets_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def uses(device: choose.Device) -> Gpu | None:
        return getattr(choose.index_over(Rows(4), device), "gpu", None)

    monkeypatch.setattr(choose, "DRIVER", tmp_path / "none")
    assert [uses(device) for device in ("auto", "cpu", Gpu("flat"))] == [None] * 3
    assert uses("cuda") == Gpu(after=0)
    assert uses(Gpu("flat", after=0)) == Gpu("flat", after=0)
    monkeypatch.setattr(choose, "DRIVER", tmp_path)
    assert [uses(device) for device in ("auto", "cpu", Gpu("flat"))] == [Gpu(), None, Gpu("flat")]
    assert choose.backend() == ("faiss-gpu" if gpu.gpu_count() else "faiss")
    with gpu_stand_in.installed():
        assert choose.backend() == "faiss-gpu"
        assert choose.backend("cpu") == "faiss"
