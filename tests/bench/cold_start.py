"""What a person waits for: `mmsearch search` and `mmsearch --help` from a cold shell.

    python -m tests.bench.cold_start --count 1000
    python -m tests.bench.cold_start --vectors 100000

Every run is a new process, after one that does not count and leaves the modules compiled, as pip does at installing.
Wall time, medians; `-X importtime` says what a search imports. With `--vectors` the library is made up
(`synthetic.py`), and `mmsearch serve --socket` is measured too: the command as a process, and the answer alone.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmsearch.config import Config
from mmsearch.inference.load_model import load_model
from mmsearch.library import Library
from mmsearch.server.client import ask
from tests.bench.common import DEFAULT_MODEL, ROOT, machine, photo_folder, table
from tests.bench.synthetic import make_library

PROGRAM = (sys.executable, "-m", "mmsearch")
QUERY = "a dog running on the beach"
HEAVY = {"torch", "sentence_transformers", "transformers"}
WANTED_S = {"search": 1.5, "--help": 0.4, "vectors": 0.6, "answer": 0.05, "warm": 0.015}
ANSWERS = 100


@dataclass(frozen=True)
class ColdStart:
    """Seconds of each run, and the heavy packages that a search imported."""

    photos: str
    search: tuple[float, ...]
    help: tuple[float, ...]
    heavy: frozenset[str]
    cpu: tuple[float, ...] = ()
    served: tuple[float, ...] = ()
    answered: tuple[float, ...] = ()
    warm: tuple[float, ...] = ()


def measure(count: int = 1000, runs: int = 7, model: str | Path = DEFAULT_MODEL) -> ColdStart:
    with tempfile.TemporaryDirectory() as temporary:
        home = _home(temporary)
        photos = photo_folder(Path(temporary) / "photos", count)
        name = "default" if Path(model) == DEFAULT_MODEL else model
        with Library.open(home / "library", model=name, device="cpu", config=Config()) as library:
            library.index(Path(temporary) / "photos")
        env = _environment(home)
        _seconds(["search", QUERY], env)
        search = tuple(_seconds(["search", QUERY], env) for _ in range(runs))
        helped = tuple(_seconds(["--help"], env) for _ in range(runs))
        return ColdStart(photos, search, helped, frozenset(_imported(["search", QUERY], env) & HEAVY))


def measure_vectors(vectors: int, runs: int = 7) -> ColdStart:
    """A library of so many made-up vectors, without and with a server."""
    with tempfile.TemporaryDirectory() as temporary:
        home = _home(temporary)
        encoder = load_model("default", "cpu")
        texts = min(vectors // 50, 5000)
        make_library(home / "library", vectors, texts=texts, dim=encoder.dim, model=encoder.fingerprint)
        env = {**_environment(home), "XDG_RUNTIME_DIR": temporary}
        _seconds(["search", QUERY], env)
        search, cpu = zip(*(_both(["search", QUERY], env) for _ in range(runs)), strict=True)
        helped = tuple(_seconds(["--help"], env) for _ in range(runs))
        heavy = frozenset(_imported(["search", QUERY], env) & HEAVY)
        with Library.open(home / "library", device="cpu", config=Config()) as library:
            what = f"{vectors} made-up vectors, searched {library.status().search}"
            library.search(QUERY)
            warm = tuple(_timed(partial(library.search, f"{QUERY} {n}")) for n in range(ANSWERS))
        server = subprocess.Popen([*PROGRAM, "serve", "--socket"], env=env, stderr=subprocess.PIPE)
        try:
            assert server.stderr is not None
            server.stderr.readline()
            served = tuple(_seconds(["search", QUERY], env) for _ in range(runs))
            os.environ["XDG_RUNTIME_DIR"] = temporary
            questions = [[f"{QUERY} {number}"] for number in range(ANSWERS)]
            answered = tuple(_timed(partial(_asked, home / "library", texts)) for texts in questions)
        finally:
            server.terminate()
            server.wait(20)
        return ColdStart(what, search, helped, heavy, cpu, served, answered, warm)


def _home(temporary: str) -> Path:
    """The home of this process and of those that it starts: FAISS's file is read by the user who wrote it."""
    home = Path(temporary) / "home"
    os.environ["MMSEARCH_HOME"] = str(home)
    return home


def _environment(home: Path) -> dict[str, str]:
    """Modules are compiled, as where the package is installed, into a folder of this run."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled = str(home.parent / "compiled")
    return {**kept, "MMSEARCH_HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": compiled}


def _asked(library: Path, texts: list[str]) -> None:
    assert ask(library, texts) is not None


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _both(arguments: list[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Wall and processor seconds of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = _seconds(arguments, env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
    wanted = WANTED_S["vectors" if found.served else "search"]
    for name, seconds, most in (
        (f'mmsearch search "{QUERY}"', found.search, f"< {wanted}"),
        ("  processor time of it", found.cpu, ""),
        ("  with a server running, the whole process", found.served, ""),
        ("  the server's answer alone", found.answered, f"< {WANTED_S['answer']}"),
        ("Library.search, warm", found.warm, f"< {WANTED_S['warm']}"),
        ("mmsearch --help", found.help, f"< {WANTED_S['--help']}"),
    ):
        if seconds:
            numbers = (statistics.median(seconds), min(seconds), max(seconds))
            rows.append((name, *(f"{n:.3f}" for n in numbers), most))
    print(table(rows))
    print(f"a search imports of {', '.join(sorted(HEAVY))}: {', '.join(sorted(found.heavy)) or 'none'}")
    print(f"{len(found.search)} runs each; library of {found.photos}")
    print(machine("onnxruntime", "tokenizers", "faiss-cpu", "sqlalchemy", "typer"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A search from a cold shell.")
    parser.add_argument("--count", type=int, default=1000, help="photos in the library")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="folder of a model")
    parser.add_argument("--vectors", type=int, help="a library of so many made-up vectors in place of photos")
    options = parser.parse_args()
    if options.vectors:
        show(measure_vectors(options.vectors, options.runs))
        raise SystemExit
    show(measure(options.count, options.runs, options.model))
