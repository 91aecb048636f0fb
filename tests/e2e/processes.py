"""Run the command line in a process of its own: its environment, its imports, its time."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNER = (sys.executable, "-m", "tests.e2e.runner")


def environment(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "MMSEARCH_HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def finish(home: Path, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command line with the fake encoder to its end."""
    command = [*RUNNER, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(home, **more), timeout=120)


def imported_by(home: Path, code: str, names: set[str]) -> set[str]:
    """Which of the modules `names` a fresh interpreter holds after `code`."""
    report = f"{code}\nimport sys\nprint('\\n' + ' '.join({names!r} & sys.modules.keys()))"
    command = [sys.executable, "-c", report]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def seconds_of(command: Sequence[str], env: dict[str, str], tries: int = 3) -> float:
    """What a person waits for on an idle machine: the least of time and processor time in a few runs."""
    spent = []
    for _ in range(tries):
        before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=120)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(time.perf_counter() - started_s)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)
