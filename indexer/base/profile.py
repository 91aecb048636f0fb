"""Measure where the time of an index run goes: clocks around its stages, cheap enough to be always on.

In: the work of each stage, reported by the thread that did it. Out: a `Profile` for the `IndexReport`. Two clocks run
for each stage: seconds that threads spent in it, waiting included, and seconds of processor time; both together cost a
microsecond or two per file. Processor time of other threads belongs to the encoder, whose library starts its own.
Processor time of the worker processes of `decoding/sandbox.py` belongs to decoding. Next: `types.py`, the values.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from indexer.base.types import STAGES, Profile, Stage, StageName


@dataclass
class Count:
    """The sums of a stage; the caller counts `items`."""

    items: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0


class Profiler:
    """The clocks of one run; created in the thread that runs it."""

    def __init__(self) -> None:
        self._counts: dict[StageName, Count] = {name: Count() for name in STAGES}
        self._waited_s = 0.0
        self._helpers_cpu_s = 0.0  # of the threads that call `helped`
        self._lock = threading.Lock()
        self._local = threading.local()
        self._started = time.perf_counter(), time.process_time(), time.thread_time(), _children_cpu_s()

    @contextmanager
    def stage(self, name: StageName) -> Iterator[Count]:
        """Time a block of the main thread of the run; blocks do not nest."""
        started, cpu = time.perf_counter(), time.thread_time()
        count = self._counts[name]
        try:
            yield count
        finally:
            count.seconds += time.perf_counter() - started
            count.cpu_s += time.thread_time() - cpu

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in which the main thread waits for files to be decoded."""
        started = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - started

    def helped(self, name: StageName, seconds: float) -> None:
        """Count one item of a stage, done by a thread that does nothing else: all its processor time is the stage's."""
        now = time.thread_time()
        cpu_s, self._local.cpu_s = now - getattr(self._local, "cpu_s", 0.0), now
        with self._lock:
            count = self._counts[name]
            count.items += 1
            count.seconds += seconds
            count.cpu_s += cpu_s
            self._helpers_cpu_s += cpu_s

    def profile(self) -> Profile:
        """The times since the profiler was created."""
        wall, process, thread, children = self._started
        own_cpu_s = time.thread_time() - thread
        beyond_s = max(0.0, time.process_time() - process - own_cpu_s - self._helpers_cpu_s)
        cpu_s = {name: count.cpu_s for name, count in self._counts.items()}
        rest_s = max(0.0, own_cpu_s + self._helpers_cpu_s - sum(cpu_s.values()))
        cpu_s["encode"] += beyond_s
        cpu_s["decode"] += _children_cpu_s() - children
        stages = tuple(Stage(name, count.items, count.seconds, cpu_s[name]) for name, count in self._counts.items())
        return Profile(time.perf_counter() - wall, cores(), self._waited_s, rest_s, stages)


def _children_cpu_s() -> float:
    times = os.times()  # of child processes that have ended
    return times.children_user + times.children_system


def cores() -> int:
    """The number of cores that this process may use; it can be smaller than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
