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
from indexer.vectors import form
from indexer.vectors.choose import has_faiss
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_index import FaissIndex, Probing, load_faiss
from indexer.vectors.gpu import MOST, Gpu, GpuIndex, Kind, gpu_count, memory_bytes
from indexer.vectors.protocol import normalised
from indexer.vectors.rows import Int64Array, Rows
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


class Watched(FaissIndex):
    """The CPU's index below a copy that is to answer by itself."""

    def search(self, queries: Float32Array, k: int, allowed: Int64Array | None = None) -> tuple[Any, Any]:
        raise AssertionError("the CPU was asked in the GPU's place")


def made_up(count: int, batch: int) -> tuple[FaissIndex, Float32Array]:
    """Made-up rows in lists, as a library keeps them, and questions."""
    world, vectors = World.of_size(DIM, count), np.empty((count, DIM), np.float16)

    def fill(start: int) -> None:
        vectors[start : start + CHUNK] = world.photos(np.random.default_rng(start), min(CHUNK, count - start))

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(fill, range(0, count, CHUNK)))
    rows = Rows(DIM, np.arange(count), vectors)
    return form.trained(rows), normalised(world.texts(np.random.default_rng(1), batch), DIM)


def copied(index: FaissIndex, kind: Kind, nprobe: int = 1) -> GpuIndex:
    """A copy in one form, which answers from the first search on."""
    return GpuIndex(Watched(index.rows, index.faiss, Probing(nprobe, 100)), Gpu(kind, share=0.9, after=0))


def enough(index: FaissIndex, questions: Float32Array, truth: Int64Array) -> GpuIndex:
    """Lists on the GPU, as many of them looked at as find 97 of 100 true neighbours."""
    copy = copied(index, "lists")
    for nprobe in sorted({round(1.25**step) for step in range(8, 36)}):
        assert isinstance(copy.cpu, FaissIndex)
        copy.cpu.probing = Probing(min(nprobe, index.faiss.nlist, MOST), 100)
        if recall(copy.search(questions, 10)[0], truth) >= 0.97:
            break
    return copy


def kinds() -> Iterator[Kind]:
    yield from (kind for kind in KINDS if kind != "cagra" or hasattr(load_faiss(), "GpuIndexCagra"))


def recall(found: Int64Array, truth: Int64Array) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def in_form(index: FaissIndex, kind: Kind, questions: Float32Array, truth: Int64Array) -> GpuIndex:
    return enough(index, questions, truth) if kind == "lists" else copied(index, kind)


def parity(size: Size) -> None:
    """Every copy against an exact search on the CPU: recall@10, equal ids, equal scores."""
    index, questions = made_up(size.vectors[0], size.batch)
    truth, scores = ExactIndex(index.rows).search(questions, 10)
    print(f"\n{len(index.rows):,} vectors, {len(questions)} questions, {index.faiss.nlist} lists\n")
    print("| copy | recall@10 | same ids in the same order | greatest difference of a score |\n|---|---:|---:|---:|")
    for kind in kinds():
        cells = _or_failure(
            lambda kind=kind: _compared(in_form(index, kind, questions, truth), questions, truth, scores), 3
        )
        print(f"| {kind} | {cells}", flush=True)


def _compared(index: GpuIndex, questions: Float32Array, truth: Int64Array, scores: Float32Array) -> str:
    ids, found = index.search(questions, 10)
    assert index.kind is not None, "the GPU took no copy; the warning says why"
    same, off = float((ids == truth).all(axis=1).mean()), np.abs(found - scores)[ids == truth].max(initial=0)
    return f"{recall(ids, truth):.4f} | {100 * same:.1f} % | {off:.1e} |"


def speed(size: Size, count: int) -> None:
    """Building the copies, one query, a batch; recall@10 against the flat copy."""
    index, questions = made_up(count, size.batch)
    truth, _ = copied(index, "flat").search(questions, 10)
    print(f"\n{count:,} vectors of {DIM}; recall@10 of {size.batch} questions; the best 10 ranked by the CPU's rows\n")
    print("| searched | made in s | one query ms | batch queries/s | recall@10 |\n|---|---:|---:|---:|---:|")
    cpu = FaissIndex(index.rows, index.faiss, Probing(index.faiss.nlist // 20, 100))
    print(f"| 1 of 20 lists, CPU, {cores()} cores | {_or_failure(lambda: _timed(cpu, size, questions, truth), 4)}")
    for kind in kinds():
        cells = _or_failure(
            lambda kind=kind: _timed(in_form(index, kind, questions, truth), size, questions, truth, kind), 4
        )
        print(f"| {kind} | {cells}", flush=True)


def _timed(
    index: FaissIndex | GpuIndex, size: Size, questions: Float32Array, truth: Int64Array, kind: Kind | None = None
) -> str:
    if isinstance(index, GpuIndex):
        fresh = GpuIndex(index.cpu, index.gpu)
        made_s = _seconds(lambda: fresh.search(questions[:1], 10))
        assert fresh.kind == kind, "the GPU took no copy; the warning says why"
        index, said = fresh, f"{made_s:.2f}"
        if kind == "lists" and isinstance(fresh.cpu, FaissIndex) and fresh.cpu.probing is not None:
            said += f", nprobe {fresh.cpu.probing.nprobe}"
    else:
        said = "-"
    single_s = [_seconds(lambda at=at: index.search(questions[at : at + 1], 10)) for at in range(size.singles)]
    batch_s = statistics.median(_seconds(lambda: index.search(questions, 10)) for _ in range(5))
    found = recall(index.search(questions, 10)[0], truth)
    return f"{said} | {1000 * statistics.median(single_s):.2f} | {len(questions) / batch_s:,.0f} | {found:.4f} |"


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
    return 4 * DIM * count * 1.5 < (memory_bytes() or 10**10) and 4 * DIM * count * 3 < here


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
