"""The memory of one process over a library of any size: opened, searched, given files, its index file written anew.

    python -m tests.bench.memory --assets 1000000

The library is made up (`synthetic.py`), in a process of its own; the 1,000 files added are small noise pictures in a
folder beside, encoded by the default model. Peak of resident memory after each step. A second library of a tenth of
the size shows what grows with every file: (peak - peak of the small one) / (files more). What a run over the files
themselves takes, which are made up here, is `rerun.py`'s part.
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

import numpy as np
from PIL import Image

from indexer.search import index_files as generations
from indexer.store import Store
from mmsearch.config import Config
from mmsearch.inference.load_model import load_model
from mmsearch.library import Library
from tests.bench.common import ROOT, machine, table
from tests.bench.synthetic import make_library

WANTED_BYTES = int(1.5 * (1 << 30))  # at a million
ADDED = 1000
MIB = 1 << 20
Steps = list[tuple[str, float, int]]  # what, seconds, peak in bytes since the process began


def visit(home: Path) -> Steps:
    """Everything one after the other, in this process."""
    steps: Steps = []

    def note(what: str, started: float) -> None:
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        steps.append((what, time.perf_counter() - started, peak_bytes))

    with Library.open(home / "library", device="cpu", config=Config()) as library:
        started = time.perf_counter()
        library.status()
        note("status", started)
        started = time.perf_counter()
        assert library.search("a dog running on the beach")
        note("first search", started)
        started = time.perf_counter()
        report = library.index(home / "more")
        assert report.added == report.encoded == ADDED, report
        note(f"{ADDED:,} files added", started)
        started = time.perf_counter()
        assert library.index(home / "more").unchanged == ADDED
        note("no change", started)
        started = time.perf_counter()
        _rewrite(home / "library")  # a large library's file is written again after one change in fifty, not after these
        note("index file written", started)
        started = time.perf_counter()
        assert library.search("a dog running on the beach", within="image")
        note("search", started)
        started = time.perf_counter()
        library.status()
        note("status", started)
    return steps


def _rewrite(where: Path) -> None:
    with Store.open(where) as store:
        model = store._catalog.model()
        assert model is not None
        generations.rewrite(store._catalog, where / generations.VECTORS_FOLDER, model)


def measure(assets: int) -> Steps:
    """A library of `assets` files, and a process that does all that with it."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        _in_process("--make", str(home), "--assets", str(assets))
        _noise(home / "more")
        return [tuple(step) for step in json.loads(_in_process("--visit", str(home)))]


def _in_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.bench.memory", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def _make(home: Path, assets: int) -> None:
    encoder = load_model("default", "cpu")
    texts = assets // 50
    make_library(home / "library", assets, texts=texts, dim=encoder.dim, model=encoder.fingerprint)


def _noise(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(ADDED):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{number:04d}.png")


def show(found: dict[int, Steps]) -> None:
    small, large = sorted(found)
    rows = [("peak after, MiB", *(f"{size:,}" for size in (small, large)), "bytes a file", f"seconds at {large:,}")]
    for (what, _, less), (_, seconds, more) in zip(found[small], found[large], strict=True):
        grown = f"{(more - less) / (large - small):.0f}"
        rows.append((what, f"{less / MIB:.0f}", f"{more / MIB:.0f}", grown, f"{seconds:.1f}"))
    print(table(rows))
    print(f"wanted at 1,000,000: under {WANTED_BYTES / MIB:.0f} MiB")
    print(machine("numpy", "sqlalchemy", "onnxruntime"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Memory as a library grows.")
    parser.add_argument("--assets", type=int, default=100_000)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--visit", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        _make(options.make, options.assets)
    elif options.visit:
        print(json.dumps(visit(options.visit)))
    else:
        show({size: measure(size) for size in (options.assets // 10, options.assets)})
