"""A process that may crash, hang or take all memory in place of this one: requests go to it, answers come back.

In: the module to run, limits on memory and on the time of one answer. Out: for each request, a JSON object, its answer:
a JSON object and binary parts. Both ends are here: `Worker` in the process that asks, `serve` in the one that answers.
Next: `decoding/sandbox.py`, which decodes pictures this way; `transfer/parquet.py`, which reads Parquet files.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

START_ALLOWANCE_S: Final = 60.0  # added for the first request to a process, which may start slowly on a busy machine
SPARE_S: Final = 70.0  # the asking process stops a slow worker; past this much more, that process itself is gone

Message = dict[str, Any]


class WorkerDied(Exception):
    """The process ended, answered nonsense, or took too long (`timed_out`)."""

    def __init__(self, how: str, *, timed_out: bool = False) -> None:
        super().__init__(how)
        self.timed_out = timed_out


class Worker:
    """One process, started at the first request, and again at the next one after it died. Not for two threads."""

    def __init__(self, command: Sequence[str], options: Message, *, timeout_s: float, memory_bytes: int) -> None:
        self._command = [*command, json.dumps({**options, "timeout_s": timeout_s, "memory_bytes": memory_bytes})]
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self.process: subprocess.Popen[bytes] | None = None

    def request(self, message: Message) -> tuple[Message, list[bytes]]:
        """Send one request and wait for its answer. Raises: WorkerDied."""
        is_new = self.process is None or self.process.poll() is not None
        process = self.process = self._start() if is_new or self.process is None else self.process
        timed_out = threading.Event()

        def kill() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(self._timeout_s + is_new * START_ALLOWANCE_S, kill)
        timer.daemon = True
        timer.start()
        try:
            return _exchange(process, message, self._memory_bytes)
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            self.close()
            raise WorkerDied(_exit_reason(process), timed_out=timed_out.is_set()) from error
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process."""
        if self.process is None:
            return
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not sent is of no use any more
                    pipe.close()
        self.process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        package = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH")) if part)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # their stacks count as memory
        return subprocess.Popen(
            [sys.executable, *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders complain there about every broken file
            env={**os.environ, "PYTHONPATH": paths, **threads},
            start_new_session=True,  # Ctrl-C is for the run; the workers end when it closes their input
        )


def serve(handle: Callable[[Message, Message], tuple[Message, Sequence[bytes]]]) -> None:
    """Answer every request on stdin within the limits of the last argument: `handle` gets the request and the options.

    Returns when stdin is closed.
    """
    options: Message = json.loads(sys.argv[-1])
    _set_limits(options["memory_bytes"])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not speak into the answers
    warnings.simplefilter("ignore")
    for line in sys.stdin.buffer:
        _set_timer(options["timeout_s"] + SPARE_S)
        answer, parts = handle(json.loads(line), options)
        answers.write(json.dumps({**answer, "part_bytes": [len(part) for part in parts]}).encode() + b"\n")
        for part in parts:
            answers.write(part)
        answers.flush()
        _set_timer(0)


def _exchange(process: subprocess.Popen[bytes], request: Message, limit_bytes: int) -> tuple[Message, list[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    line = process.stdout.readline(limit_bytes)
    if not line.endswith(b"\n"):
        raise EOFError
    answer: Message = json.loads(line)
    parts = []
    for size_bytes in answer.pop("part_bytes"):
        limit_bytes -= size_bytes
        if size_bytes < 0 or limit_bytes < 0:
            raise ValueError(f"a part of {size_bytes} bytes")
        parts.append(process.stdout.read(size_bytes))
        if len(parts[-1]) != size_bytes:
            raise EOFError
    return answer, parts


def _exit_reason(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _set_timer(seconds: float) -> None:
    """End this process by a signal after `seconds`; 0 takes it back."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _set_limits(memory_bytes: int) -> None:
    if sys.platform != "win32":
        import resource

        for what, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0)):
            with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of address space
                resource.setrlimit(what, (limit, limit))
