"""Calls that run in several threads, and a close that waits for them to end.

In: `running` around each call, `closing` around what gives files back. Out: neither is in the other's way: a close
waits for the calls that are running, and a call that begins meanwhile waits for the close. Next: `types.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from indexer.base.errors import LibraryClosed

CLOSE_TIMEOUT_S: Final = 10.0


class Calls:
    """The running calls on one object, from any number of threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._closing = False
        self._own = threading.local()  # how many calls this thread is in, one within the other

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around a call. One that begins while another thread closes waits; a call within a call never does.

        Raises: LibraryClosed: the close takes more than twice the time that it waits for calls.
        """
        depth = getattr(self._own, "depth", 0)
        if not depth:
            with self._changed:
                if not self._changed.wait_for(lambda: not self._closing, 2 * CLOSE_TIMEOUT_S):
                    raise LibraryClosed("the library is being closed by another thread; open it again")
                self._running += 1
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            if not depth:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Around a close: waits for the calls that are running, at most `CLOSE_TIMEOUT_S`.

        What is closed must bear calls that take longer, and those of this thread, which are not waited for.
        """
        if getattr(self._own, "depth", 0):
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._closing)
            self._closing = True
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._running, CLOSE_TIMEOUT_S)
            yield
        finally:
            with self._changed:
                self._closing = False
                self._changed.notify_all()
