"""What a person waits for: `mmsearch search` and `mmsearch --help` from a cold shell.

    python -m tests.bench.cold_start --count 1000

Every run is a new process. Wall time, medians; `-X importtime` says what a search imports.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmsearch.config import Config
from mmsearch.library import Library
from tests.bench.common import DEFAULT_MODEL, ROOT, machine, photo_folder, table

PROGRAM = (sys.executable, "-m", "mmsearch.cli")
QUERY = "a dog running on the beach"
HEAVY = {"torch", "sentence_transformers", "transformers"}
WANTED_S = {"search": 1.5, "--help": 0.4}


@dataclass(frozen=True)
class ColdStart:
    """Seconds of each run, and the heavy packages that a search imported."""

    photos: str
    search: tuple[float, ...]
    help: tuple[float, ...]
    heavy: frozenset[str]


def measure(count: int = 1000, runs: int = 7, model: str | Path = DEFAULT_MODEL) -> ColdStart:
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "home"
        photos = photo_folder(Path(temporary) / "photos", count)
        name = "default" if Path(model) == DEFAULT_MODEL else model
        with Library.open(home / "library", model=name, device="cpu", config=Config()) as library:
            library.index(Path(temporary) / "photos")
        env = {**os.environ, "MMSEARCH_HOME": str(home), "PYTHONPATH": str(ROOT)}
        search = tuple(_seconds(["search", QUERY], env) for _ in range(runs))
        helped = tuple(_seconds(["--help"], env) for _ in range(runs))
        return ColdStart(photos, search, helped, frozenset(_imported(["search", QUERY], env) & HEAVY))


def _seconds(arguments: list[str], env: Mapping[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run([*PROGRAM, *arguments], env=env, check=True, capture_output=True, timeout=120)
    return time.perf_counter() - started


def _imported(arguments: list[str], env: Mapping[str, str]) -> set[str]:
    """The packages one command imports, by the interpreter's own account."""
    command = [sys.executable, "-X", "importtime", *PROGRAM[1:], *arguments]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=120)
    names = re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, flags=re.MULTILINE)
    assert "numpy" in names, done.stderr[-500:]  # the account is there
    return {name.partition(".")[0] for name in names}


def show(found: ColdStart) -> None:
    rows: list[tuple[str, ...]] = [("seconds", "median", "least", "most", "wanted")]
    for name, seconds in ((f'search "{QUERY}"', found.search), ("--help", found.help)):
        numbers = (statistics.median(seconds), min(seconds), max(seconds))
        rows.append((f"mmsearch {name}", *(f"{n:.2f}" for n in numbers), f"< {WANTED_S[name.split()[0]]}"))
    print(table(rows))
    print(f"a search imports of {', '.join(sorted(HEAVY))}: {', '.join(sorted(found.heavy)) or 'none'}")
    print(f"{len(found.search)} runs each; library of {found.photos}")
    print(machine("onnxruntime", "tokenizers", "faiss-cpu", "sqlalchemy", "typer"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A search from a cold shell.")
    parser.add_argument("--count", type=int, default=1000, help="photos in the library")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="folder of a model")
    options = parser.parse_args()
    show(measure(options.count, options.runs, options.model))
