"""Does anything wear out a server, or a library that many threads search? Descriptors and memory, early and late.

    python -m tests.bench.server --requests 5000
    python -m tests.bench.server --requests 5000 --old ../a-checkout-of-before

A library of made-up vectors (`synthetic.py`), searched by the default model: `--requests` questions to a server, one
connection each, then as many threads in one process, one search each. `--old` measures another checkout first, in the
same sitting.
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
import threading
import time
from pathlib import Path

EARLY = 500
LIBRARY = "home/library"


def grown(pid: int | str) -> str:
    """Open descriptors and resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s*(\d+)", status)
    assert found is not None
    return f"{len(os.listdir(f'/proc/{pid}/fd')):6} descriptors {int(found[1]) / 1024:7.0f} MB"


def ask_a_server(folder: Path, requests: int) -> None:
    from mmsearch.server.client import ask

    command = [sys.executable, "-m", "mmsearch", "serve", "--socket", "--library", str(folder / LIBRARY)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            assert "answering" in (line := server.stderr.readline()), line
            seconds, unanswered = [], 0
            for number in range(requests):
                started_s = time.perf_counter()
                unanswered += ask(folder / LIBRARY, [f"a dog on the beach {number}"]) is None
                seconds.append(time.perf_counter() - started_s)
                if number + 1 in (EARLY, requests):
                    print(f"  server after {number + 1:6} requests: {grown(server.pid)}", flush=True)
            half, most = statistics.median(seconds), sorted(seconds)[int(0.99 * len(seconds))]
            print(
                f"  answers: p50 {1000 * half:.2f} ms, p99 {1000 * most:.2f} ms, not answered {unanswered}", flush=True
            )
        finally:
            server.terminate()
        print(f"  server told to end: exit code {server.wait(30)}")


def search_in_threads(folder: Path, count: int) -> None:
    from mmsearch import Library

    with Library.open(folder / LIBRARY, device="cpu") as library:
        library.search("warm")
        for number in range(count):
            thread = threading.Thread(target=library.search, args=(f"a dog on the beach {number}",))
            thread.start()
            thread.join()
            if number + 1 in (EARLY, count):
                print(f"  library after {number + 1:5} threads:  {grown('self')}", flush=True)


def measure(checkout: Path, folder: Path, requests: int) -> None:
    """Run both in a process that imports `checkout`."""
    print(checkout.resolve(), flush=True)
    env = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "XDG_RUNTIME_DIR": str(folder)}
    env["MMSEARCH_HOME"] = str(folder / "home")
    command = [sys.executable, str(Path(__file__).resolve()), "--in", str(folder), "--requests", str(requests)]
    subprocess.run(command, env=env, cwd=checkout, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--vectors", type=int, default=25_000)
    parser.add_argument("--old", type=Path, help="another checkout, measured first")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)  # the process that measures
    options = parser.parse_args()
    if options.folder is not None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # what leaks is to be seen, not stopped
        ask_a_server(options.folder, options.requests)
        search_in_threads(options.folder, options.requests)
        return
    from mmsearch.inference.load_model import load_model
    from tests.bench.synthetic import make_library

    with tempfile.TemporaryDirectory() as temporary:
        encoder = load_model("default", "cpu")
        made = {"texts": options.vectors // 50, "dim": encoder.dim, "model": encoder.fingerprint}
        make_library(Path(temporary) / LIBRARY, options.vectors, **made)
        for checkout in [*([options.old] if options.old else []), Path(__file__).parents[2]]:
            measure(checkout, Path(temporary), options.requests)


if __name__ == "__main__":
    main()
