"""Where the time of an index run goes: clocks around its stages, cheap enough to be always on.

In: what each stage did, told by the thread that did it. Out: a `Profile` for the `IndexReport`. Two clocks run for
each stage: seconds that threads spent in it, waiting included, and seconds of processor time; a microsecond or two a
file for both. What the process used beyond its own threads is the encoder's, whose threads are its library's; what
the processes of `guard.py` used is decoding. Next: `types.py`, the values.
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
    """What a stage adds up to; `items` is for the caller to raise."""

    items: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0


class Profiler:
    """Clocks of one run, made in the thread that runs it."""

    def __init__(self) -> None:
        self._counts: dict[StageName, Count] = {name: Count() for name in STAGES}
        self._waited_s = 0.0
        self._helpers_cpu_s = 0.0  # of threads other than this one that said what they did
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._started = time.perf_counter(), time.process_time(), time.thread_time(), _children_cpu_s()

    @contextmanager
    def stage(self, name: StageName) -> Iterator[Count]:
        """Time a block of the run's own thread; blocks do not nest."""
        started, cpu = time.perf_counter(), time.thread_time()
        count = self._counts[name]
        try:
            yield count
        finally:
            count.seconds += time.perf_counter() - started
            count.cpu_s += time.thread_time() - cpu

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in which the run's own thread waits for files to be decoded."""
        started = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - started

    def helped(self, name: StageName, seconds: float) -> None:
        """One item of a stage is done by a thread that does nothing else: all its processor time counts."""
        now = time.thread_time()
        cpu_s, self._mine.cpu_s = now - getattr(self._mine, "cpu_s", 0.0), now
        with self._lock:
            count = self._counts[name]
            count.items += 1
            count.seconds += seconds
            count.cpu_s += cpu_s
            self._helpers_cpu_s += cpu_s

    def profile(self) -> Profile:
        """The run so far."""
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
    times = os.times()  # of processes that ended
    return times.children_user + times.children_system


def cores() -> int:
    """How many cores this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
