"""What a search costs as a library grows, and what it misses: latency, recall, memory, time to build.

    python -m tests.bench.ann --sizes 10000 100000 1000000 10000000

Made-up vectors of 256 dimensions (`synthetic.py`), made piece by piece; each size in its own process. The index is
written the way `mmsearch index` writes it, with whatever search that chooses, by up to 400 texts, and read again.
Questions are 500 other texts; recall@10 is against a search of everything. Where the file holds bytes, a SQLite table
of float16 means stands for the catalog, and the answers are ranked again by it, as `mmsearch search` does.

"first": a fresh process opens the file and searches once. "anon" and "mapped" are what the process takes after that and
20 more searches beyond what Python and numpy took: memory of its own, and pages of mapped files, which the system may
take back. "peak" is of the process that builds. The last lines are growth exponents, the slopes of latency over size
on logarithmic axes: 1 is linear. By what 100,000 take, ten million need 17 GB of disk below `--folder`, 5 GB of memory
and some ten minutes of processor time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from indexer.base.types import Float32Array, Model
from indexer.search.live_index import means_of
from indexer.vectors import lists
from indexer.vectors.base import Originals
from indexer.vectors.choose import load_index
from indexer.vectors.codes import CODED_BYTES
from indexer.vectors.file_index import FileIndex
from tests.bench.common import ROOT, machine, table
from tests.bench.synthetic import World

DIM = 256
QUESTIONS = 500
WARM = 10  # searches that do not count
ROWS_AT_ONCE = 8192
MODEL = Model(1, "", "", DIM)


def measure(size: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """One size, in this process; files go into `folder`."""
    rng, world = np.random.default_rng(seed), World.of_size(DIM, size, seed)
    path, catalog = folder / "index.faiss", folder / "means.sqlite"
    started = time.perf_counter()
    index, originals = _made(size, rng, world, catalog)
    made_s = time.perf_counter() - started
    texts = world.texts(rng, max(lists.FEWEST_QUESTIONS, min(lists.QUESTIONS, size // 50)))
    questions = world.texts(rng, QUESTIONS)
    np.save(folder / "questions.npy", questions[:21])
    started = time.perf_counter()
    plan = lists.planned(index, texts, None, originals)
    planned_s = time.perf_counter() - started
    index.save(path, plan)
    built_s = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    del index
    opened = load_index(path, "cpu")
    assert isinstance(opened, FileIndex)
    found, times = _asked(opened, questions, originals)
    truth = opened._all_ids()[opened.search_exactly(questions, 10, None, originals)]
    started = time.perf_counter()
    opened.search(questions, 10, None, originals)
    together_s = time.perf_counter() - started
    command = [sys.executable, "-c", COLD, *map(str, (path, folder / "questions.npy", catalog))]
    cold = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    searched = "everything" if plan is None else f"{plan.probes} of {len(plan.centroids)} lists"
    return {
        "size": size,
        "search": searched + (", 8 bits" if opened.is_coded else ""),
        "recall": float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])),
        "p50_ms": 1000 * float(np.percentile(times, 50)),
        "p99_ms": 1000 * float(np.percentile(times, 99)),
        "many_ms": 1000 * together_s / QUESTIONS,
        **dict(zip(("first_ms", "anon_mb", "mapped_mb"), map(float, cold), strict=True)),
        "file_mb": path.stat().st_size / 1e6,
        "made_s": made_s,
        "planned_s": planned_s,
        "built_s": built_s,
        "peak_mb": peak_mb,
    }


def _made(size: int, rng: np.random.Generator, world: World, catalog: Path) -> tuple[FileIndex, Originals | None]:
    """An index of `size` photos, as `from_catalog` fills it, and where it is one of bytes a catalog of their means."""
    index = FileIndex(DIM)
    connection = None
    if 4 * size * DIM > CODED_BYTES:
        connection = sqlite3.connect(catalog, isolation_level=None)
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE vectors (id INTEGER PRIMARY KEY, mu BLOB, logvar BLOB)")
    for start in range(0, size, ROWS_AT_ONCE):
        means = world.photos(rng, min(ROWS_AT_ONCE, size - start)).astype(np.float16)
        index.add(np.arange(start, start + len(means)), means.astype(np.float32))
        if connection is not None:
            connection.execute("BEGIN")
            rows = ((start + place, mu.tobytes(), mu.tobytes()) for place, mu in enumerate(means))
            connection.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
    return index, None if connection is None else partial(means_of, connection, MODEL)


# a fresh process that opens the file and searches, once for the time and 20 times more for the memory
COLD = """
import sqlite3, sys, time
from functools import partial
from pathlib import Path
import numpy as np
from indexer.search.live_index import means_of
from indexer.base.types import Model
from indexer.vectors.choose import load_index
def resident_mb():
    lines = dict(line.split(":") for line in open("/proc/self/status") if line.startswith(("RssAnon", "RssFile")))
    return np.array([int(lines[name].split()[0]) / 1000 for name in ("RssAnon", "RssFile")])
queries = np.load(sys.argv[2])
queries[:1] @ np.ones((queries.shape[1], 2048), np.float32)
before, started = resident_mb(), time.perf_counter()
index = load_index(Path(sys.argv[1]), "cpu")
originals = None
if index.is_coded:
    originals = partial(means_of, sqlite3.connect(sys.argv[3]), Model(1, "", "", queries.shape[1]))
index.search(queries[:1], 10, None, originals)
first_ms = 1000 * (time.perf_counter() - started)
for one in queries[1:]:
    index.search(one[None, :], 10, None, originals)
time.sleep(1)
print(first_ms, *(resident_mb() - before))
"""


def _asked(
    index: FileIndex, questions: Float32Array, originals: Originals | None
) -> tuple[list[list[int]], list[float]]:
    found, times = [], []
    for question in questions[:WARM]:
        index.search(question[None, :], 10, None, originals)
    time.sleep(1)  # what a process keeps in memory once it has searched a few times is there by then
    for question in questions:
        started = time.perf_counter()
        ids, _ = index.search(question[None, :], 10, None, originals)
        times.append(time.perf_counter() - started)
        found.append(ids[0].tolist())
    return found, times


COLUMNS = {
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "many, ms each": "many_ms",
    "first ms": "first_ms",
    "anon MB": "anon_mb",
    "mapped MB": "mapped_mb",
    "file MB": "file_mb",
    "build s": "built_s",
    "peak MB": "peak_mb",
}


def show(rows: list[dict[str, Any]]) -> None:
    cells: list[tuple[str, ...]] = [("vectors", "searched", "recall@10", *COLUMNS)]
    for row in rows:
        numbers = (f"{row[name]:.1f}" for name in COLUMNS.values())
        cells.append((f"{row['size']:,}", row["search"], f"{row['recall']:.3f}", *numbers))
    print(table(cells))
    for one, other in pairwise(rows):
        slopes = (f"{name} {growth(one, other, name):.2f}" for name in ("p50_ms", "p99_ms"))
        print(f"growth exponent from {one['size']:,} to {other['size']:,}: {', '.join(slopes)}")
    print(machine("numpy", "faiss-cpu"))


def growth(one: dict[str, Any], other: dict[str, Any], name: str) -> float:
    """The slope between two sizes on logarithmic axes."""
    return math.log(other[name] / one[name]) / math.log(other["size"] / one["size"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Search as a library grows.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="where the files go meanwhile; the system's temporary folder")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            print(json.dumps(measure(options.one, Path(temporary))))
        raise SystemExit
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.bench.ann"]
    command += ["--folder", str(options.folder)] if options.folder else []
    measured = []
    for size in options.sizes:
        done = subprocess.run([*command, "--one", str(size)], env=env, check=True, stdout=subprocess.PIPE, text=True)
        measured.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{size:,} done", file=sys.stderr, flush=True)
    show(measured)
