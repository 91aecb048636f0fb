"""What a search costs as a library grows, and what it misses: latency, recall, memory, time to build.

    python -m tests.bench.ann --sizes 10000 100000 1000000

Made-up vectors of 256 dimensions (`synthetic.py`); each size in its own process. The index is written the way
`mmsearch index` writes it, with whatever search that chooses, by up to 400 texts, and read again. Questions are 500
other texts; recall@10 is against a search of everything. "first": a fresh process opens the file and searches once;
"memory" is what that adds to it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from indexer.types import Float32Array
from indexer.vectors import lists
from indexer.vectors.file_index import FileIndex
from tests.bench.common import ROOT, machine, table
from tests.bench.synthetic import World

DIM = 256
QUESTIONS = 500
ROWS_AT_ONCE = 8192


def measure(size: int, seed: int = 0) -> dict[str, Any]:
    """One size, in this process."""
    rng, world = np.random.default_rng(seed), World.of(DIM, seed)
    index = FileIndex(DIM)
    for start in range(0, size, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, size - start)
        index.add(np.arange(start, start + count), world.photos(rng, count))
    texts = world.texts(rng, max(lists.FEWEST_QUESTIONS, min(lists.QUESTIONS, size // 50)))
    questions = world.texts(rng, QUESTIONS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.faiss"
        started = time.perf_counter()
        plan = lists.planned(index, texts, None)
        planned_s = time.perf_counter() - started
        index.save(path, plan)
        built_s = time.perf_counter() - started
        del index
        opened = FileIndex.load(path)
        found, times = _asked(opened, questions)
        truth = opened.search_exactly(questions, 10, None)
        truth_ids = opened._all_ids()[truth]
        started = time.perf_counter()
        opened.search(questions, 10)
        together_s = time.perf_counter() - started
        cold = subprocess.run(
            [sys.executable, "-c", COLD, str(path)], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
        return {
            "size": size,
            "search": "everything" if plan is None else f"{plan.probes} of {len(plan.centroids)} lists",
            "recall": float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth_ids, strict=True)])),
            "p50_ms": 1000 * float(np.percentile(times, 50)),
            "p99_ms": 1000 * float(np.percentile(times, 99)),
            "many_ms": 1000 * together_s / QUESTIONS,
            "first_ms": float(cold[0]),
            "memory_mb": float(cold[1]),
            "file_mb": path.stat().st_size / 1e6,
            "planned_s": planned_s,
            "built_s": built_s,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


# a fresh process that opens the file and searches once: the time of both, and the memory it takes beyond numpy's
COLD = f"""
import sys, time
from pathlib import Path
import numpy as np
resident_mb = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
from indexer.vectors.file_index import FileIndex
query = np.random.default_rng(0).standard_normal((1, {DIM})).astype(np.float32)
query @ np.ones(({DIM}, 2048), np.float32)
before, started = resident_mb(), time.perf_counter()
index = FileIndex.load(Path(sys.argv[1]))
index.search(query, 10)
print(1000 * (time.perf_counter() - started), resident_mb() - before)
"""


def _asked(index: FileIndex, questions: Float32Array) -> tuple[list[list[int]], list[float]]:
    found, times = [], []
    for question in questions[:5]:
        index.search(question[None, :], 10)
    for question in questions:
        started = time.perf_counter()
        ids, _ = index.search(question[None, :], 10)
        times.append(time.perf_counter() - started)
        found.append(ids[0].tolist())
    return found, times


def show(rows: list[dict[str, Any]]) -> None:
    titles = (
        "vectors",
        "searched",
        "recall@10",
        "p50 ms",
        "p99 ms",
        "many, ms each",
        "first ms",
        "memory MB",
        "file MB",
    )
    cells: list[tuple[str, ...]] = [(*titles, "build s", "peak MB")]
    for row in rows:
        numbers = ("p50_ms", "p99_ms", "many_ms", "first_ms", "memory_mb", "file_mb", "built_s", "peak_mb")
        cells.append((f"{row['size']:,}", row["search"], f"{row['recall']:.3f}", *(f"{row[n]:.1f}" for n in numbers)))
    print(table(cells))
    print(machine("numpy", "faiss-cpu"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Search as a library grows.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
    else:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.bench.ann", "--one"]
        outputs = [
            subprocess.run([*command, str(size)], env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
            for size in options.sizes
        ]
        show([json.loads(output.splitlines()[-1]) for output in outputs])
