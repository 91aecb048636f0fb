"""`mmsearch index` over a folder in which nothing changed: how long it takes, and how much memory, as files grow.

    python -m tests.bench.rerun --files 100000

The library is made up (`synthetic.py`) and so are its files, all empty, which a run without changes never opens.
Every run is a process of its own; wall time, medians. The second folder has a tenth of the files: from the difference
of the two peaks of memory follows what each file costs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.common import ROOT, machine, table

WANTED_S = 3.0
MIB = 1 << 20


@dataclass(frozen=True)
class Rerun:
    """Of each run: seconds of the process, its processor time, seconds inside `Library.index`, peak of its memory."""

    files: int
    seconds: tuple[float, ...]
    cpu_s: tuple[float, ...]
    inside_s: tuple[float, ...]
    peak_bytes: tuple[int, ...]


def measure(files: int, runs: int = 5) -> Rerun:
    """Runs without a change over `files` files, after one that warms the page cache."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        # in a process of its own: Linux counts the memory of the process that starts another as the other's
        make = [sys.executable, "-m", "tests.bench.synthetic", str(home / "library"), "--count", str(files), "--files"]
        subprocess.run(make, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, check=True)
        found = [_run(home, files) for _ in range(runs + 1)][1:]
    return Rerun(files, *zip(*found, strict=True))


def _run(home: Path, files: int) -> tuple[float, float, float, int]:
    command = [sys.executable, "-m", "mmsearch", "index", str(home / "photos"), "--device", "cpu", "--json"]
    env = {**os.environ, "MMSEARCH_HOME": str(home), "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        report = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    assert (report["unchanged"], report["added"], report["encoded"]) == (files, 0, 0), report
    return seconds, usage.ru_utime + usage.ru_stime, report["seconds"], usage.ru_maxrss * 1024


def bytes_per_file(small: Rerun, large: Rerun) -> float:
    """By how much the peak of memory grows with every file."""
    grown = statistics.median(large.peak_bytes) - statistics.median(small.peak_bytes)
    return grown / (large.files - small.files)


def show(runs: list[Rerun]) -> None:
    rows = [("files", "process, s", "processor, s", "inside, s", "slowest, s", "peak, MiB")]
    for one in runs:
        seconds = (*(statistics.median(some) for some in (one.seconds, one.cpu_s, one.inside_s)), max(one.seconds))
        peak = f"{statistics.median(one.peak_bytes) / MIB:.0f}"
        rows.append((f"{one.files:,}", *(f"{value:.2f}" for value in seconds), peak))
    print(table(rows))
    small, large = runs
    print(
        f"{bytes_per_file(small, large):.0f} bytes of memory a file; wanted for 100,000 files: under {WANTED_S:.0f} s"
    )
    print(machine("sqlalchemy"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A run in which nothing changed.")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    show([measure(files, options.runs) for files in (options.files // 10, options.files)])
