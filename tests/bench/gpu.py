"""A GPU: does every form of the index's copy find what it should, how fast, and how fast is the default model.

    python -m tests.bench.gpu
    python -m tests.bench.gpu --rehearse

Needs `pip install 'mmsearch[gpu,train]'` and an NVIDIA GPU; vectors and pixels are made up. First every copy is held
against an exact search, then timed at 100,000, 1 and 10 million vectors (what fits), then the default model encodes on
CUDA. Each part runs in its own process with its own share of eight minutes: a crash in one hides no other. Without a
GPU it says so and rehearses: the same steps with tiny sizes, through `tests/gpu_stand_in.py`, whose times mean nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from indexer.base.types import Float32Array
from indexer.vectors.base import BoolArray, Int64Array
from indexer.vectors.choose import has_faiss
from indexer.vectors.file_index import TAIL_ROWS, FileIndex
from indexer.vectors.gpu_index import GpuIndex
from indexer.vectors.lists import ROUNDS, SAMPLE_PER_LIST, lists_for
from indexer.vectors.mirrors import Gpu, Kind, Rows, gpu_count, load_faiss, memory_bytes
from tests.bench.common import DEFAULT_MODEL, ROOT, cores, machine
from tests.bench.synthetic import World

DIM = 256
MINUTES = 8
CHUNK = 100_000
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    vectors: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    batch: int = 1000
    singles: int = 200
    images: int = 4096
    texts: int = 8192


TINY = Size((600,), batch=20, singles=3, images=2, texts=8)


class Made(GpuIndex):
    """An index over made-up rows in memory, as if a file had cut them into lists."""

    def __init__(self, rows: Rows, probes: int, kind: Kind | None) -> None:
        super().__init__(rows.vectors.shape[1], gpu=Gpu(kind or "auto", share=0.9, after=0 if kind else sys.maxsize))
        self._made, self._given_probes = rows, probes
        self._tail = blocks(rows.vectors)

    def _first_rows(self, covered: int) -> Rows:
        return self._made

    def _lists_to_look_at(self, mask: BoolArray | None) -> int:
        return self._given_probes

    def _is_exact(self, k: int, available: int, filtered: bool) -> bool:
        return False

    def _probe(self, mask: BoolArray | None, part: Float32Array, count: int) -> tuple[Int64Array, Float32Array]:
        if self.gpu.after == 0:
            raise AssertionError("the CPU was asked in the GPU's place")
        return self._scan(mask, part, count)


def blocks(vectors: Float32Array) -> list[tuple[Int64Array, Float32Array]]:
    """Rows as an index in memory holds them; their numbers are their ids."""
    starts = range(0, len(vectors), TAIL_ROWS)
    return [(np.arange(at, min(at + TAIL_ROWS, len(vectors))), vectors[at : at + TAIL_ROWS]) for at in starts]


def made_up(count: int, batch: int) -> tuple[Rows, Float32Array]:
    """Unit rows in lists, and questions."""
    world, vectors = World.of_size(DIM, count), np.empty((count, DIM), np.float32)

    def fill(start: int) -> None:
        part = world.photos(np.random.default_rng(start), min(CHUNK, count - start))
        vectors[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(fill, range(0, count, CHUNK)))
    faiss, lists = load_faiss(), lists_for(count)
    sample = np.random.default_rng(0).choice(count, min(count, SAMPLE_PER_LIST * lists), replace=False)
    kmeans = faiss.Kmeans(DIM, lists, niter=ROUNDS, spherical=True, seed=1, min_points_per_centroid=1)
    kmeans.train(vectors[sample])
    assigner = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), DIM, faiss.GpuIndexFlatConfig())
    assigner.add(kmeans.centroids)
    parts = [assigner.search(vectors[start : start + CHUNK], 1)[1][:, 0] for start in range(0, count, CHUNK)]
    return Rows(vectors, kmeans.centroids, np.concatenate(parts)), world.texts(np.random.default_rng(1), batch)


def enough_probes(rows: Rows, questions: Float32Array, truth: Int64Array) -> int:
    """The fewest lists that hold 97 of 100 true neighbours, as `lists.py` counts them."""
    assert rows.lists is not None
    assert rows.centroids is not None
    ranks = np.argsort(np.argsort(-(questions @ rows.centroids.T), axis=1), axis=1)  # [q, c]
    return int(np.quantile(np.take_along_axis(ranks, rows.lists[truth], axis=1), 0.97)) + 1


def kinds() -> Iterator[Kind]:
    yield from (kind for kind in KINDS if kind != "cagra" or hasattr(load_faiss(), "GpuIndexCagra"))


def recall(found: Int64Array, truth: Int64Array) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def parity(size: Size) -> None:
    """Every copy against an exact search on the CPU: recall@10, equal ids, equal scores."""
    rows, questions = made_up(size.vectors[0], size.batch)
    cpu = FileIndex(DIM)
    cpu._tail = blocks(rows.vectors)
    truth, scores = cpu.search(questions, 10)
    probes = enough_probes(rows, questions, truth)
    assert rows.centroids is not None
    print(f"\n{len(rows.vectors):,} vectors, {len(questions)} questions, {probes} of {len(rows.centroids)} lists\n")
    print("| copy | recall@10 | same ids in the same order | greatest difference of a score |\n|---|---:|---:|---:|")
    for kind in kinds():
        cells = _or_failure(lambda kind=kind: _compared(Made(rows, probes, kind), questions, truth, scores), 3)
        print(f"| {kind} | {cells}", flush=True)


def _compared(index: Made, questions: Float32Array, truth: Int64Array, scores: Float32Array) -> str:
    ids, found = index.search(questions, 10)
    assert index._mirror is not None, "the GPU took no copy; the warning says why"
    same, off = float((ids == truth).all(axis=1).mean()), np.abs(found - scores)[ids == truth].max(initial=0)
    return f"{recall(ids, truth):.4f} | {100 * same:.1f} % | {off:.1e} |"


def speed(size: Size, count: int) -> None:
    """Building the copies, one query, a batch; recall@10 against the flat copy."""
    rows, questions = made_up(count, size.batch)
    truth, _ = Made(rows, 1, "flat").search(questions, 10)
    probes = enough_probes(rows, questions, truth)
    print(f"\n{count:,} vectors of {DIM}; recall@10 of {size.batch} questions; the best 10 ranked by the CPU's rows\n")
    print("| searched | made in s | one query ms | batch queries/s | recall@10 |\n|---|---:|---:|---:|---:|")
    print(
        f"| flat, CPU, {cores()} cores | {_or_failure(lambda: _timed(Made(rows, 1, None), size, questions, truth), 4)}"
    )
    for kind in kinds():
        cells = _or_failure(lambda kind=kind: _timed(Made(rows, probes, kind), size, questions, truth), 4)
        print(f"| {kind}{f', {probes} lists' if kind in ('lists', 'pq') else ''} | {cells}", flush=True)


def _timed(index: Made, size: Size, questions: Float32Array, truth: Int64Array) -> str:
    on_gpu = index.gpu.after == 0
    made_s = _seconds(lambda: index.search(questions[:1], 10))
    assert not on_gpu or index._mirror is not None, "the GPU took no copy; the warning says why"
    quick = on_gpu or len(index) <= 10**6
    singles = range(size.singles if quick else size.singles // 10)
    single_s = [_seconds(lambda at=at: index.search(questions[at : at + 1], 10)) for at in singles]
    few = questions if quick else questions[: len(questions) // 10]
    batch_s = statistics.median(_seconds(lambda: index.search(few, 10)) for _ in range(5 if on_gpu else 1))
    found = recall(index.search(few, 10)[0], truth[: len(few)]) if on_gpu else 1.0
    made = f"{made_s:.2f}" if on_gpu else "-"
    return f"{made} | {1000 * statistics.median(single_s):.2f} | {len(few) / batch_s:,.0f} | {found:.4f} |"


def encoding(size: Size, device: str) -> None:
    """The default model by torch, as it is and in bfloat16, beside ONNX Runtime on the CPU; pixels are noise."""
    import torch

    from mmsearch.inference.load_model import load_model
    from mmsearch.inference.torch_model import TorchModel

    model = TorchModel.load("default", DEFAULT_MODEL, device)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (min(256, size.images), model.side_px, model.side_px, 3), np.uint8)
    vocabulary = ["a", "dog", "runs", "on", "the", "beach", "red"]
    words = [" ".join(rng.choice(vocabulary, 12)) for _ in range(min(256, size.texts))]
    print("\n| default model | images/s | texts/s | cosine with float32: images | texts |\n|---|---:|---:|---:|---:|")
    exact: list[Float32Array] = []

    def row(encoder: Any, share: int, context: Callable[[], AbstractContextManager[Any]]) -> str:
        with context():
            encoder.encode_images(pixels), encoder.encode_texts(words)  # kernels are chosen, memory is taken
            images = _rate(lambda: encoder.encode_images(pixels), len(pixels), size.images // share)
            texts = _rate(lambda: encoder.encode_texts(words), len(words), size.texts // share)
            means = [encoder.encode_images(pixels).mu, encoder.encode_texts(words).mu]
        exact.extend(means[len(exact) :])
        return f"{images:,.0f} | {texts:,.0f} | {_cosine(means[0], exact[0]):.5f} | {_cosine(means[1], exact[1]):.5f} |"

    def bfloat16() -> AbstractContextManager[Any]:
        return torch.autocast(device, torch.bfloat16)

    print(f"| torch float32, {device} | {_or_failure(lambda: row(model, 1, nullcontext), 4)}", flush=True)
    print(f"| torch bfloat16, channels last, {device} | {_or_failure(lambda: row(model, 1, bfloat16), 4)}", flush=True)
    onnx = _or_failure(lambda: row(load_model("default", "cpu"), 8, nullcontext), 4)
    print(f"| ONNX Runtime, CPU, {cores()} cores | {onnx}")


def _rate(encode: Callable[[], Any], each: int, count: int) -> float:
    turns = max(1, count // each)
    return turns * each / _seconds(lambda: [encode() for _ in range(turns)])


def _cosine(a: Float32Array, b: Float32Array) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.einsum("nd,nd->n", a, b) / lengths))


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _or_failure(cells: Callable[[], str], width: int) -> str:
    """Cells of a row, or why there are none."""
    try:
        return cells()
    except Exception as error:  # of FAISS, CUDA, torch, memory: whatever it is, the other rows are wanted
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''} |" + " |" * (
            width - 1
        )


def fits(count: int) -> bool:
    """Whether so many vectors can be copied and, on this side, held three times over."""
    here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 * DIM * count * 1.5 < (memory_bytes() or 10**10) and 4 * DIM * count * 4 < here


def device_name() -> str | None:
    """Of the GPU that torch sees; None without one."""
    try:
        import torch
    except ImportError:
        return None
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


def run_part(part: str, rehearse: bool) -> None:
    size, device = (TINY, "cpu") if rehearse else (Size(), "cuda")
    from tests import gpu_stand_in

    with gpu_stand_in.installed(cuvs=True) if rehearse else nullcontext():
        if part == "parity":
            parity(size)
        elif part == "encoding":
            encoding(size, device)
        else:
            speed(size, int(part))


def run_all(rehearse: bool) -> int:
    """Every part in its own process; 1 if one of them failed."""
    name, searches = device_name(), has_faiss() and gpu_count() > 0
    if not rehearse and not (name or searches):
        print("no CUDA device that torch or FAISS can use: rehearsing with stand-ins, whose times mean nothing")
        rehearse = True
    print(f"# {'rehearsal' if rehearse else name or 'a GPU that torch does not see'}")
    size, deadline, failed = TINY if rehearse else Size(), time.monotonic() + 60 * MINUTES, 0
    parts = ["parity", "encoding", *(str(count) for count in size.vectors)]
    for part in parts:
        missing = ("torch" if not name else "") if part == "encoding" else ("FAISS" if not searches else "")
        if not rehearse and (missing or (part.isdigit() and not fits(int(part)))):
            print(f"\n{part}: left out, {f'{missing} sees no GPU' if missing else 'no room'}")
            continue
        command = [sys.executable, "-m", "tests.bench.gpu", "--part", part, *(["--rehearse"] if rehearse else [])]
        try:
            left_s = max(10.0, deadline - time.monotonic())
            code = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=left_s)
            failed |= code.returncode != 0
            print(f"\n{part}: ended with {code.returncode}" if code.returncode else "", flush=True)
        except subprocess.TimeoutExpired:
            failed = 1
            print(f"\n{part}: cut off, {MINUTES} minutes are over", flush=True)
    print(machine("torch", "faiss-gpu-cu12", "faiss-cpu", "numpy", "onnxruntime"))
    return int(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Search and encoding on a GPU.")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, CPU stand-ins")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        run_part(options.part, options.rehearse)
    else:
        sys.exit(run_all(options.rehearse))
