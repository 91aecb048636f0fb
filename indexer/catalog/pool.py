"""Connections to the catalog that threads share: a few stay open, each is lent for one transaction.

A connection takes two descriptors and up to 2 MB. One for each thread is never given back where threads come and go,
as in a server.

In: a way to open a connection. Out: connections, one user at a time. Next: `reader.py`, which asks over them.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from indexer.base.errors import LibraryError

MOST_LENT: Final = 8
MOST_IDLE: Final = 2
WAIT_TIMEOUT_S: Final = 30


class Pool:
    """At most `MOST_LENT` connections at a time, of which `most_idle` stay open unused."""

    def __init__(self, where: str, connect: Callable[[], sqlite3.Connection], most_idle: int = MOST_IDLE) -> None:
        self._where = where
        self._connect = connect
        self._most_idle = most_idle
        self._idle: list[sqlite3.Connection] = []
        self._closings = 0
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MOST_LENT)

    @contextmanager
    def lent(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile; after an error of SQLite's it is not lent again.

        Raises: LibraryError: all were in use for `WAIT_TIMEOUT_S`.
        """
        if not self._places.acquire(timeout=WAIT_TIMEOUT_S):
            raise LibraryError(f"{self._where} has been read by {MOST_LENT} threads for {WAIT_TIMEOUT_S} s; ask again")
        try:
            with self._lock:
                closings = self._closings
                connection = self._idle.pop() if self._idle else None
            connection, sound = connection or self._connect(), True
            try:
                yield connection
            except sqlite3.Error:
                sound = False
                raise
            finally:
                self._take_back(connection, closings, sound)
        finally:
            self._places.release()

    def close(self) -> None:
        """Close all that are open: those in use when they come back, since SQLite must not lose one in the middle."""
        with self._lock:
            self._closings += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take_back(self, connection: sqlite3.Connection, closings: int, sound: bool) -> None:
        with self._lock:
            if sound and closings == self._closings and len(self._idle) < self._most_idle:
                self._idle.append(connection)
                return
        connection.close()
