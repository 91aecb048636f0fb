"""Command lines on a disk that fails once, at the n-th write, read, fsync, rename ... of files below a folder.

    python -m tests.e2e.failing_disk     # started with LD_PRELOAD by `FailingDisk`, one JSON request a line

In: what fails where, and a command line. Out: its exit code and what it printed, and how many such calls there were. A
library of C (`fail_shim.c`) stands between the process and the system's; the driver has everything loaded and forks for
each command line, so that one takes hundredths of a second. Next: `test_disk_errors.py`.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.processes import environment

SHIM = Path(__file__).with_name("fail_shim.c")
CALLS = ("write", "pwrite", "read", "pread", "fsync", "ftruncate", "rename", "unlink", "mkdir", "open", "stat")


@dataclass(frozen=True)
class Said:
    """What one command line gave; `calls` of the kind that was to fail, and whether one did."""

    code: int
    out: str
    err: str
    calls: int
    failed: bool


class FailingDisk:
    """A driver with the shim, for as long as it is open."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None or not sys.platform.startswith("linux"):
            pytest.skip("needs Linux and a compiler of C")
        shim = folder / "fail_shim.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", str(SHIM), "-o", str(shim), "-ldl"], check=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.failing_disk", str(shim)],
            env=environment(folder / "home", LD_PRELOAD=str(shim)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str | Path, call: str = "", below: Path | str = "", number: int = 0, error: int = 0,
        sticky: bool = False,
    ) -> Said:  # fmt: skip
        """A command line whose `number`-th `call` on a path that holds `below` fails with `error`; 0: none does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"arguments": [str(one) for one in arguments], "arm": [call, str(below), number, error, sticky]}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Said(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


def main() -> None:

    from mmsearch import model_choice
    from mmsearch.cli import app
    from tests.e2e.runner import load_fake

    model_choice.load_encoder = load_fake
    shim = ctypes.CDLL(sys.argv[1])
    shim.fail_count.restype = shim.fail_hit.restype = ctypes.c_long
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            child = os.fork()
            if child == 0:
                _in_child(request, folder, shim, app.main)
            _, status = os.waitpid(child, 0)
            calls, failed = (folder / "calls").read_text().split() if (folder / "calls").exists() else (0, 0)
            texts = {one: (folder / one).read_text(errors="replace") for one in ("out", "err")}
        answer = Said(os.waitstatus_to_exitcode(status), **texts, calls=int(calls), failed=bool(int(failed)))
        sys.stdout.write(json.dumps(vars(answer)) + "\n")
        sys.stdout.flush()


def _in_child(request: dict[str, list[str]], folder: Path, shim: ctypes.CDLL, work: object) -> None:
    code = 99
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
        call, below, number, error, sticky = request["arm"]
        shim.fail_arm(call.encode(), os.fsencode(below), ctypes.c_long(number), error, int(sticky))
        code = work(request["arguments"])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        calls = f"{shim.fail_count()} {shim.fail_hit()}"
        shim.fail_arm(b"", b"", ctypes.c_long(-1), 0, 0)
        (folder / "calls").write_text(calls)
        os._exit(code)


if __name__ == "__main__":
    main()
