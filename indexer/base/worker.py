"""A process that may crash, hang or take all memory in place of this one: requests go to it, answers come back.

In: the module to run, limits on memory and on the time of one answer. Out: for each request, a JSON object, its answer:
a JSON object and binary parts. Both ends are here: `Worker` in the process that asks, `serve` in the one that answers.
A process may die of its request, or be ended from outside, as by a system short of memory. So a request has two tries,
the second in a fresh process, and `WorkerDied` says whether something outside had a part in it.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

TRIES: Final = 2
START_S: Final = 60.0  # until a process is ready for its first request, on a busy machine
GONE_S: Final = 5.0  # from the end of its answers to its own
SPARE_S: Final = 70.0  # the asking process stops a slow worker; past this much more, that process itself is gone
BUSY: Final = 0.5  # of its time at least, a process that computes without end gets from the processor
# what a request can bring about; every other signal was sent by somebody
_CRASHES: Final = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP")
_READY: Final = b"ready\n"

Message = dict[str, Any]


class WorkerDied(Exception):
    """The process ended, answered nonsense, or took too long.

    Attributes:
        timed_out: it took too long.
        from_outside: it was killed, stopped, kept from the processor or not started; the request may be a good one.
        is_certain: another try would end the same way.
    """

    def __init__(
        self, how: str, *, timed_out: bool = False, from_outside: bool = False, is_certain: bool = False
    ) -> None:
        super().__init__(how)
        self.timed_out = timed_out
        self.from_outside = from_outside
        self.is_certain = is_certain


class Worker:
    """One process, started at the first request, and again at the next one after it died. Not for two threads."""

    def __init__(self, command: Sequence[str], options: Message, *, timeout_s: float, memory_bytes: int) -> None:
        self._command = [*command, json.dumps({**options, "timeout_s": timeout_s, "memory_bytes": memory_bytes})]
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self.process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def request(self, message: Message, before: Sequence[Message] = ()) -> tuple[Message, list[bytes]]:
        """Send one request and wait for its answer, `TRIES` times at most. Raises: WorkerDied.

        Args:
            before: the requests that a fresh process has to answer first.
        """
        deaths: list[WorkerDied] = []
        while len(deaths) < TRIES:
            try:
                if self._closed:
                    raise WorkerDied("it was closed", from_outside=True)
                if self.process is None or self.process.poll() is not None:
                    self.process = self._start()
                    for earlier in before:
                        self._ask(self.process, earlier)
                return self._ask(self.process, message)
            except WorkerDied as died:
                deaths.append(died)
                if died.is_certain or self._closed:
                    break
        last, from_outside = deaths[-1], self._closed or any(died.from_outside for died in deaths)
        raise WorkerDied(str(last), timed_out=last.timed_out, from_outside=from_outside) from last

    def close(self) -> None:
        """End the process; a thread that waits for its answer gets WorkerDied."""
        self._closed = True
        self._end()

    def _ask(self, process: subprocess.Popen[bytes], message: Message) -> tuple[Message, list[bytes]]:
        """One try. Raises: WorkerDied."""
        before_s = _processor_s(process)
        late: list[WorkerDied] = []

        def kill() -> None:
            late.append(_too_late(process, before_s, self._timeout_s))
            process.kill()

        with _timer(self._timeout_s, kill):
            try:
                return _exchange(process, message, self._memory_bytes)
            except (OSError, EOFError):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GONE_S)  # before `_end` kills it: how it ended by itself is the answer
                died = _death(process)
            except (ValueError, KeyError, TypeError):
                died = WorkerDied("its answer makes no sense")
        self._end()
        raise late[0] if late else died

    def _end(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not sent is of no use any more
                    pipe.close()
        self.process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        """A process that is ready. Raises: WorkerDied; whatever it dies of, no request is to blame."""
        package = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH")) if part)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # their stacks count as memory
        try:
            process = self.process = subprocess.Popen(
                [sys.executable, *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # decoders complain there about every broken file
                env={**os.environ, "PYTHONPATH": paths, **threads},
                start_new_session=True,  # Ctrl-C is for the run; the workers end when it closes their input
            )
        except OSError as error:  # no memory, no process, no descriptor left
            raise WorkerDied(f"no process for it: {error.strerror}", from_outside=True) from error
        assert process.stdout is not None
        with _timer(START_S, process.kill):
            try:
                is_ready = process.stdout.readline(len(_READY)) == _READY
            except ValueError:  # closed in another thread
                is_ready = False
        if is_ready and not self._closed:
            return process
        self._end()
        raise WorkerDied(f"before it began, {_death(process)}", from_outside=True)


def serve(handle: Callable[[Message, Message], tuple[Message, Sequence[bytes]]]) -> None:
    """Answer every request on stdin within the limits of the last argument: `handle` gets the request and the options.

    Returns when stdin is closed.
    """
    options: Message = json.loads(sys.argv[-1])
    _set_limits(options["memory_bytes"])
    answers = os.fdopen(os.dup(1), "wb")
    answers.write(_READY)
    answers.flush()
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


def _death(process: subprocess.Popen[bytes]) -> WorkerDied:
    """What ended a process, and whether that came from outside."""
    code = process.returncode
    if code is None:
        return WorkerDied("it answers no more")
    if code >= 0:
        return WorkerDied(f"exit code {code}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    out_of_time = name == "SIGXCPU"  # a limit that it set itself
    return WorkerDied(name, from_outside=name not in _CRASHES and not out_of_time, is_certain=out_of_time)


def _too_late(process: subprocess.Popen[bytes], before_s: float | None, timeout_s: float) -> WorkerDied:
    """Why a process has no answer after its time: it computes on, waits for something, or could not go on."""
    how, now_s = f"longer than {timeout_s:.0f} s", _processor_s(process)
    if before_s is None or now_s is None:
        return WorkerDied(how, timed_out=True)
    is_busy = now_s - before_s >= BUSY * timeout_s
    # asleep: it waits for itself, as a deadlock does, or for this process, which was stopped: the second try tells
    is_waiting = _stat(process)[:1] == ["S"]
    return WorkerDied(how, timed_out=True, from_outside=not is_busy and not is_waiting, is_certain=is_busy)


def _processor_s(process: subprocess.Popen[bytes]) -> float | None:
    """The processor time of a process so far; None where the system does not say."""
    fields = _stat(process)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else None


def _stat(process: subprocess.Popen[bytes]) -> list[str]:
    """What Linux says of a process (proc(5)): its state first; nothing elsewhere."""
    try:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@contextlib.contextmanager
def _timer(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Call `act` in a thread when the block takes longer. The clock stands still while the machine sleeps."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
