"""Where questions wait for the one thread that answers them: a model and a library are asked by one at a time.

In: questions with the sockets of those who asked. Out: answers. The row is short, and nobody stands in it for long: a
search by oneself takes half a second. Who left is passed over. Next: `connections.py`, which talks with the clients.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mmsearch.server.answers import Question

MOST_WAITING: Final = 8
WAIT_TIMEOUT_S: Final = 0.5


@dataclass(frozen=True, eq=False)
class Asked:
    """A question, who asked it, and when by `time.monotonic`."""

    question: Question
    line: socket.socket
    at_s: float

    def has_left(self) -> bool:
        """Whether the client is not there any more: nobody needs the answer."""
        try:
            poll = select.poll()
            poll.register(self.line, 0)  # both directions closed is told without being asked for
            return bool(poll.poll(0))
        except (OSError, ValueError):  # closed on this side
            return True


class Desk:
    """One thread, and the row before it; `told` is called whenever there is an answer to fetch."""

    def __init__(self, answer: Callable[[Question], bytes], told: Callable[[], None]) -> None:
        self._answer = answer
        self._told = told
        self._changed = threading.Condition()
        self._row: deque[Asked] = deque()
        self._answered: deque[tuple[Asked, bytes]] = deque()
        self._begun_s: float | None = None  # what is answered now
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, asked: Asked) -> bool:
        """Stand in the row; False where it is long, or slow."""
        with self._changed:
            if len(self._row) >= MOST_WAITING:
                gone = [one for one in self._row if one.has_left()]
                self._row = deque(one for one in self._row if one not in gone)
                self._answered += [(one, b"") for one in gone]
            slow = self._begun_s is not None and asked.at_s - self._begun_s > WAIT_TIMEOUT_S
            if slow or len(self._row) >= MOST_WAITING or self._over:
                return False
            self._row.append(asked)
            self._changed.notify()
            return True

    def late(self, now_s: float) -> list[Asked]:
        """Whoever has waited for too long; they stand in the row no more."""
        with self._changed:
            found = []
            while self._row and now_s - self._row[0].at_s > WAIT_TIMEOUT_S:
                found.append(self._row.popleft())
            return found

    def answers(self) -> list[tuple[Asked, bytes]]:
        """What was answered since the last call."""
        with self._changed:
            found, self._answered = list(self._answered), deque()
            return found

    def is_idle(self) -> bool:
        """Whether nothing is asked."""
        with self._changed:
            return self._begun_s is None and not self._row and not self._answered

    def close(self, timeout_s: float) -> bool:
        """Answer nothing more; whether the thread has ended, for which it has so many seconds."""
        with self._changed:
            self._over = True
            self._row.clear()
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (asked := self._next()) is not None:
            answer = b"" if asked.has_left() else self._answer(asked.question)
            with self._changed:
                self._begun_s = None
                self._answered.append((asked, answer))
            self._told()

    def _next(self) -> Asked | None:
        with self._changed:
            self._changed.wait_for(lambda: self._row or self._over)
            if self._over:
                return None
            self._begun_s = time.monotonic()
            return self._row.popleft()
