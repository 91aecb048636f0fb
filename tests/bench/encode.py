"""The shipped encoder of photos on every runtime at hand, by threads and by batch: speed, start, agreement.

    python -m tests.bench.encode
    python -m tests.bench.encode --batches

In: the shipped model and validation photos with captions, decoded beforehand. Every runtime lives in a process of its
own, so that no idle threads of one disturb another; the batches go round in turns. Out: photos a second of one core's
time and of the clock, medians of the batches; recall with the shipped texts; cosines to the vectors of float32 and of
what ships, which would stand beside them in one library. `formats.py` compares numbers, this file what carries them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from mmsearch.data.datasets import read_dataset
from mmsearch.evaluation.recall import retrieval
from mmsearch.inference.load_model import load_model
from mmsearch.models.checkpoint import load_vae
from mmsearch.training.export.int8 import INT8_GRAPH
from tests.bench.common import DEFAULT_MODEL, SHARED_PHOTOS, cores, machine
from tests.bench.formats import image_encoder, squares_of
from tests.bench.litert import Trunk, layers_of, litert_run
from tests.bench.runtimes import Run, absent, onnx_run, openvino_run

RUNTIMES = ("ONNX Runtime", "OpenVINO", "LiteRT")
PACKAGES = {"OpenVINO": "openvino", "LiteRT": "ai-edge-litert"}
FLOAT32, SHIPPED, ENCODER = "ONNX Runtime, float32", "ONNX Runtime, int8", "encode_images"
TIMED, ROUNDS = 256, 3
BATCHES = (1, 8, 16, 32, 64)


@dataclass
class Row:
    """One runtime in one process."""

    name: str
    threads: int
    pool: ProcessPoolExecutor
    open_s: float = 0.0
    cpu_s: list[float] = field(default_factory=list)  # a photo, of every batch
    wall_s: list[float] = field(default_factory=list)
    means: list[NDArray[np.float32]] = field(default_factory=list)

    def take(self, start: int, stop: int) -> None:
        means, cpu_s, wall_s = self.pool.submit(_encode, start, stop).result()
        self.means.append(means)
        self.cpu_s.append(cpu_s / (stop - start))
        self.wall_s.append(wall_s / (stop - start))

    @property
    def rates(self) -> tuple[float, float]:
        """Photos a second of processor time, all threads together, and of wall-clock time."""
        return 1 / statistics.median(self.cpu_s), 1 / statistics.median(self.wall_s)


class Held:
    """Of a worker: its runtime and the photos."""

    run: Run
    photos: NDArray[np.uint8]


held = Held()


def _runtime(name: str, model: Path, threads: int) -> Callable[[], Run]:
    """What opens a runtime, all that a model's folder would hold being ready."""
    if name == ENCODER:
        return lambda: _encoder(model)
    kind, numbers = name.split(", ")
    graph = model / ("image.onnx" if numbers == "float32" else INT8_GRAPH)
    if kind == "ONNX Runtime":
        return lambda: onnx_run(graph, threads)
    if kind == "OpenVINO":
        return lambda: openvino_run(graph, "f32", threads)
    layers = None if numbers == "float32" else layers_of(onnx.load(str(graph), load_external_data=False))
    encoder = image_encoder(model)
    trunk = Trunk(encoder.trunk, layers).build()
    return lambda: litert_run(trunk, encoder, threads)


def _encoder(model: Path) -> Run:
    loaded = load_model(model, device="cpu")
    return lambda batch: np.asarray(loaded.encode_images(batch).mu)


def _open(name: str, model: Path, threads: int, photos: Path) -> float:
    held.photos = np.load(photos, mmap_mode="r")
    opening, first = _runtime(name, model, threads), np.ascontiguousarray(held.photos[:1])
    started = time.perf_counter()
    held.run = opening()
    held.run(first)
    return time.perf_counter() - started


def _encode(start: int, stop: int) -> tuple[NDArray[np.float32], float, float]:
    batch = np.ascontiguousarray(held.photos[start:stop])
    cpu, wall = time.process_time(), time.perf_counter()
    means = held.run(batch)
    return means, time.process_time() - cpu, time.perf_counter() - wall


def opened(name: str, threads: int, model: Path, photos: Path) -> Row:
    row = Row(name, threads, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
    row.open_s = row.pool.submit(_open, name, model, threads, photos).result()
    return row


def in_turns(rows: list[Row], count: int, batch: int) -> None:
    """Every batch through every row, each in its turn the first; a batch of each before, to warm up."""
    for row in rows:
        row.pool.submit(_encode, 0, batch).result()
    for number, start in enumerate(range(0, count, batch)):
        turn = number % len(rows)
        for row in rows[turn:] + rows[:turn]:
            row.take(start, min(start + batch, count))


def runtimes(
    model: Path, photos: Path, texts: NDArray[np.float32], owner: NDArray[np.int64], count: int, size: int, only: str
) -> None:
    """The table of runtimes: one thread over all photos, two threads of the runtime's own over some of them."""
    kinds = [kind for kind in RUNTIMES if kind not in PACKAGES or not absent(PACKAGES[kind])]
    names = [f"{kind}, {numbers}" for numbers in ("float32", "int8") for kind in kinds]
    names = [name for name in names if name in (FLOAT32, SHIPPED) or name.endswith(only)]
    one = [opened(name, 1, model, photos) for name in names]
    in_turns(one, count, size)
    _close(one)
    two = [opened(name, 2, model, photos) for name in names]
    in_turns(two, min(TIMED, count), size)
    _close(two)
    vectors = {row.name: _unit(np.concatenate(row.means)) for row in one}
    shipped = next(row for row in one if row.name == SHIPPED).rates[0]
    titles = ("runtime", "photos/s a thread", "ratio to shipped", "2 threads: a core", "wall", "mean of six")
    titles += ("cosine to float32", "to shipped", "least", "opened in s")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for row, pair in zip(one, two, strict=True):
        found = retrieval(vectors[row.name], texts, owner).mean_recall
        cosines = [(vectors[row.name] * vectors[other]).sum(1) for other in (FLOAT32, SHIPPED)]
        cells = [f"{row.rates[0]:.1f}", f"{row.rates[0] / shipped:.2f}", *(f"{rate:.1f}" for rate in pair.rates)]
        cells += [f"{found:.2f}", f"{cosines[0].mean():.4f}", f"{cosines[1].mean():.4f}", f"{cosines[1].min():.4f}"]
        print(f"| {row.name} | {' | '.join(cells)} | {row.open_s:.2f} |")
    for kind in RUNTIMES:
        if kind not in kinds:
            print(f"| {kind}: {absent(PACKAGES[kind])} |{' |' * (len(titles) - 1)}")


def batches(model: Path, photos: Path, count: int) -> None:
    """The table of batch sizes for the graph that ships: one thread, ONNX Runtime's two, and `encode_images`."""
    kinds = {"1 thread": (SHIPPED, 1), "2 threads": (SHIPPED, 2), "encode_images": (ENCODER, cores())}
    titles = [f"{kind}: {rate}" for kind in kinds for rate in ("a core", "wall")]
    print(f"photos/s\n\n| batch | {' | '.join(titles)} |\n|{'---|' * (len(titles) + 1)}")
    pools = [opened(*kind, model, photos) for kind in kinds.values()]
    rows = {size: [Row(one.name, one.threads, one.pool) for one in pools] for size in BATCHES}
    for _ in range(ROUNDS):  # every size sees every stretch of time
        for size in BATCHES:
            in_turns(rows[size], count, size)
    for size in BATCHES:
        print(f"| {size} | {' | '.join(f'{rate:.1f}' for row in rows[size] for rate in row.rates)} |")
    _close(pools)


def _close(rows: list[Row]) -> None:
    for row in rows:
        row.pool.shutdown()


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def main(model: Path, data: Path, count: int, size: int, by_batch: bool, only: str, folder: Path) -> None:
    examples = read_dataset(data, "val")[: count or None]
    photos = folder / "photos.npy"
    np.save(photos, squares_of([e.image for e in examples], load_vae(model)[1].side_px))
    if by_batch:
        batches(model, photos, len(examples))
    else:
        texts = load_model(model, device="cpu").embed_texts([c for e in examples for c in e.captions]).mu
        owner = np.array([i for i, e in enumerate(examples) for _ in e.captions])
        runtimes(model, photos, texts, owner, len(examples), size, only)
    of = "" if by_batch else f" of {size}"
    print(f"\n{len(examples)} photos, decoded beforehand; batches{of} in turns, medians of the batches.")
    print(machine("onnxruntime", *PACKAGES.values(), "torch"))


if __name__ == "__main__":
    import tempfile

    parser = argparse.ArgumentParser(description="The shipped encoder of photos on every runtime at hand.")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="the exported model's folder")
    parser.add_argument("--data", type=Path, default=SHARED_PHOTOS / "flickr8k")
    parser.add_argument("--count", type=int, default=0, help="validation photos; 0 for all")
    parser.add_argument("--batch", type=int, default=32, help="photos at a time")
    parser.add_argument("--batches", action="store_true", help="batch sizes of what ships in place of runtimes")
    parser.add_argument("--only", choices=("float32", "int8"), default="", help="these numbers, beside the references")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(options.model, options.data, options.count, options.batch, options.batches, options.only, Path(temporary))
