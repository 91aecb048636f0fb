"""What a search costs as a library grows, and what it misses: ours beside FAISS's own forms, on the same vectors.

    python -m tests.bench.ann --sizes 10000 100000 1000000 10000000

Made-up vectors of 256 dimensions (`synthetic.py`), made piece by piece; each size in its own process. The files are
written as `mmsearch index` writes them, in the form that `form.planned` chooses by up to 400 texts, and read again.
Questions are 500 other texts, one at a time on one thread; recall@10 is against a search of everything, and the time of
ours includes the exact ranking by the vectors at half precision. The rows of FAISS are its own search alone, each with
the fewest lists, or the least `efSearch`, whose recall with the first 400 texts is 0.95 or more; RaBitQ's best are
ranked again by the same rows as ours. `--ours` leaves them out; beyond a million vectors HNSW is left out, which would
take an hour to build.

"first": a fresh process opens the files and searches once. "anon" and "mapped" are what it takes after that and 20
more searches beyond what Python and numpy took: memory of its own, and pages of mapped files, which the system may take
back. "peak anon" is of the process that builds. The last lines are growth exponents, the slopes of latency over size on
logarithmic axes: 1 is linear. Ten million take 6 GB of disk below `--folder`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from indexer.base.types import Float32Array, IndexFacts
from indexer.vectors import form
from indexer.vectors.choose import index_over
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_index import DEPTH, FaissIndex, load_faiss
from indexer.vectors.protocol import VectorIndex, cosines, normalised
from indexer.vectors.rows import Float16Array, Int64Array, Rows, pieces, write_rows
from tests.bench.common import ROOT, machine, table
from tests.bench.synthetic import World

DIM = 256
QUESTIONS = 500
WARM = 10  # searches that do not count
RECALL = 0.95
HNSW_UP_TO = 1_000_000
Search = Callable[[Float32Array], Int64Array]  # one question [1, d] -> 10 positions


def measure(size: int, folder: Path, *, ours_only: bool, seed: int = 0) -> list[dict[str, Any]]:
    """One size, in this process; files go into `folder`."""
    rng, world = np.random.default_rng(seed), World.of_size(DIM, size, seed)
    path, of_faiss = folder / "index.f16", folder / "index.faiss"
    write_rows(path, _photos(world, rng, size))
    texts, questions = (normalised(world.texts(rng, count), DIM) for count in (form.QUESTIONS, QUESTIONS))
    np.save(folder / "questions.npy", questions[:21])
    rows = Rows.open(path, np.arange(size), DIM)
    with PeakAnon() as peak:
        started = time.perf_counter()
        index, facts = form.planned(rows, texts, None)
        if index is not None:
            index.write(of_faiss)
        built_s = time.perf_counter() - started
    del index
    opened = index_over(rows, "cpu", facts, of_faiss.read_bytes() if facts.form == "ivf" else None)
    exact = ExactIndex(rows)
    truth = exact.search(questions, DEPTH)[0]
    ours = {
        "what": f"ours: {_in_words(facts, opened)}",
        **_timed(lambda one: opened.search(one, DEPTH)[0][0], questions, truth),
        **_cold(folder, facts, size),
        "file_mb": (of_faiss if of_faiss.exists() else path).stat().st_size / 1e6,
        "built_s": built_s,
        "peak_mb": peak.mb,
    }
    measured = [ours]
    for row in [] if ours_only else _of_faiss(rows, texts, questions, exact, truth, folder, opened):
        measured.append(row)
        print(row, file=sys.stderr, flush=True)
    return [{"size": size, **row} for row in measured]


def _photos(world: World, rng: np.random.Generator, size: int) -> Iterator[Float16Array]:
    for start, stop in pieces(size):
        yield world.photos(rng, stop - start).astype(np.float16)


def _in_words(facts: IndexFacts, index: VectorIndex) -> str:
    if facts.form == "exact":
        return "everything, FAISS flat" if isinstance(index, FaissIndex) else "everything, numpy"
    return f"{facts.nprobe} of {facts.lists} lists, {facts.depth} ranked again"


def _timed(search: Search, questions: Float32Array, truth: Int64Array) -> dict[str, float]:
    found, times = [], []
    for question in questions[:WARM]:
        search(question[None, :])
    for question in questions:
        started = time.perf_counter()
        positions = search(question[None, :])
        times.append(time.perf_counter() - started)
        found.append(positions)
    return {
        "recall": recall(found, truth),
        "p50_ms": 1000 * float(np.percentile(times, 50)),
        "p99_ms": 1000 * float(np.percentile(times, 99)),
    }


def recall(found: Any, truth: Int64Array) -> float:
    """Recall@10."""
    pairs = zip(found, truth.tolist(), strict=True)
    return float(np.mean([len(set(some.tolist()) & set(wanted)) / len(wanted) for some, wanted in pairs]))


def _of_faiss(
    rows: Rows,
    texts: Float32Array,
    questions: Float32Array,
    exact: ExactIndex,
    truth: Int64Array,
    folder: Path,
    ours: VectorIndex,
) -> Iterator[dict[str, Any]]:
    """FAISS's forms, each tuned by `texts` and measured by `questions`."""
    faiss, size = load_faiss(), len(rows.ids)
    by_texts = exact.search(texts, DEPTH)[0]
    lists = form.lists_for(size)
    names = ["SQfp16", f"IVF{lists},SQfp16", f"IVF{lists},SQ8", *(["HNSW32,SQfp16"] if size <= HNSW_UP_TO else [])]
    for name in names:
        started = time.perf_counter()
        index = faiss.index_factory(DIM, name, faiss.METRIC_INNER_PRODUCT)
        if "IVF" in name and isinstance(ours, FaissIndex) and ours.probing is not None:  # the same lists as ours
            index.quantizer.add(ours.faiss.quantizer.reconstruct_n(0, lists))
        sample = np.sort(np.random.default_rng(0).choice(size, min(size, 40 * lists), replace=False))
        index.train(normalised(rows.take(sample), DIM))
        for start, stop in pieces(size, 65_536):
            index.add(normalised(rows.slice(start, stop), DIM))
        built_s = time.perf_counter() - started
        params, said = _least(index, name, texts, by_texts)
        faiss.omp_set_num_threads(1)
        timed = _timed(partial(_search_alone, index, DEPTH, params), questions, truth)
        faiss.write_index(index, str(folder / "other.faiss"))
        file_mb = (folder / "other.faiss").stat().st_size / 1e6
        yield {"what": f"FAISS {name}{said}", **timed, "file_mb": file_mb, "built_s": built_s}
        del index
    if isinstance(ours, FaissIndex) and ours.probing is not None:
        yield from _bare(ours, questions, truth, rows)


def _bare(ours: FaissIndex, questions: Float32Array, truth: Int64Array, rows: Rows) -> Iterator[dict[str, Any]]:
    """What FAISS takes of our search, and with it the shortest way to rank what it finds."""
    assert ours.probing is not None
    index, (nprobe, depth) = ours.faiss, (ours.probing.nprobe, ours.probing.depth)
    params = load_faiss().SearchParametersIVF(nprobe=nprobe)

    def again(one: Float32Array) -> Int64Array:
        found = index.search(one, depth, params=params)[1][0]
        return np.asarray(found[np.argsort(-cosines(one[0], rows.take(found)))[:DEPTH]])

    name = type(index).__name__.removeprefix("Index")
    alone = _timed(partial(_search_alone, index, depth, params), questions, truth)
    yield {"what": f"FAISS {name}, nprobe {nprobe}, the best {depth} not ranked", **alone}
    yield {"what": f"FAISS {name}, nprobe {nprobe}, {depth} ranked again", **_timed(again, questions, truth)}


def _search_alone(index: Any, count: int, params: Any, one: Float32Array) -> Int64Array:
    return np.asarray(index.search(one, count, params=params)[1][0][:DEPTH])


def _least(index: Any, name: str, texts: Float32Array, truth: Int64Array) -> tuple[Any, str]:
    """The parameters of the shortest search that finds enough."""
    faiss = load_faiss()
    if not name.startswith(("IVF", "HNSW")):
        return None, ""
    what, kind = ("nprobe", faiss.SearchParametersIVF) if "IVF" in name else ("efSearch", faiss.SearchParametersHNSW)
    value = 8
    while value < 1024:
        params = kind(**{what: value})
        if recall(index.search(texts, DEPTH, params=params)[1], truth) >= RECALL:
            break
        value = max(value + 1, round(value * 1.15))
    return params, f", {what} {value}"


class PeakAnon:
    """The most memory of its own that this process takes in a block, looked at ten times a second."""

    mb = 0.0

    def __enter__(self) -> PeakAnon:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            lines = Path("/proc/self/status").read_text().splitlines()
            kb = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.mb = max(self.mb, kb / 1000)


# a fresh process that opens the files and searches, once for the time and 20 times more for the memory
COLD = """
import json, sys, time
from pathlib import Path
import numpy as np
from indexer.vectors.choose import index_over
from indexer.base.types import IndexFacts
from indexer.vectors.rows import Rows
def resident_mb():
    lines = dict(line.split(":") for line in open("/proc/self/status") if line.startswith(("RssAnon", "RssFile")))
    return np.array([int(lines[name].split()[0]) / 1000 for name in ("RssAnon", "RssFile")])
folder, facts, size = Path(sys.argv[1]), IndexFacts(**json.loads(sys.argv[2])), int(sys.argv[3])
queries = np.load(folder / "questions.npy")
queries[:1] @ np.ones((queries.shape[1], 2048), np.float32)
before, started = resident_mb(), time.perf_counter()
rows = Rows.open(folder / "index.f16", np.arange(size), queries.shape[1])
index = index_over(rows, "cpu", facts, (folder / "index.faiss").read_bytes() if facts.form == "ivf" else None)
index.search(queries[:1], 10)
first_ms = 1000 * (time.perf_counter() - started)
for one in queries[1:]:
    index.search(one[None, :], 10)
print(first_ms, *(resident_mb() - before))
"""


def _cold(folder: Path, facts: IndexFacts, size: int) -> dict[str, float]:
    command = [sys.executable, "-c", COLD, str(folder), json.dumps(asdict(facts)), str(size)]
    numbers = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    return dict(zip(("first_ms", "anon_mb", "mapped_mb"), map(float, numbers), strict=True))


COLUMNS = {
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "first ms": "first_ms",
    "anon MB": "anon_mb",
    "mapped MB": "mapped_mb",
    "file MB": "file_mb",
    "built s": "built_s",
    "peak anon MB": "peak_mb",
}


def show(rows: list[dict[str, Any]]) -> None:
    cells: list[tuple[str, ...]] = [("vectors", "searched", "recall@10", *COLUMNS)]
    for row in rows:
        numbers = (f"{row[name]:.{3 if name == 'p50_ms' else 1}f}" if name in row else "" for name in COLUMNS.values())
        cells.append((f"{row['size']:,}", row["what"], f"{row['recall']:.3f}", *numbers))
    print(table(cells))
    for one, other in pairwise(row for row in rows if row["what"].startswith("ours")):
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
    parser.add_argument("--ours", action="store_true", help="without FAISS's own forms")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            print(json.dumps(measure(options.one, Path(temporary), ours_only=options.ours)))
        raise SystemExit
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.bench.ann", *(["--ours"] if options.ours else [])]
    command += ["--folder", str(options.folder)] if options.folder else []
    measured: list[dict[str, Any]] = []
    for size in options.sizes:
        done = subprocess.run([*command, "--one", str(size)], env=env, check=True, stdout=subprocess.PIPE, text=True)
        measured += json.loads(done.stdout.splitlines()[-1])
        print(f"{size:,} done", file=sys.stderr, flush=True)
    show(measured)
