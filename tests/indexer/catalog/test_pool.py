"""Connections are shared by threads, few at a time, and never closed under whoever uses one."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from indexer.base.errors import LibraryError
from indexer.catalog import pool as pooling
from indexer.catalog.pool import MOST_IDLE, MOST_LENT, Pool
from indexer.catalog.reader import CatalogReader, read
from indexer.search.search import CATALOG_FILE
from indexer.store import Store

HAS_DESCRIPTORS = Path("/proc/self/fd").is_dir()


class Opened:
    """A pool over connections to nothing, which it counts."""

    def __init__(self) -> None:
        self.made: list[sqlite3.Connection] = []
        self.pool = Pool("the catalog", self._connect)

    def _connect(self) -> sqlite3.Connection:
        self.made.append(sqlite3.connect(":memory:", check_same_thread=False))
        return self.made[-1]

    def open_now(self) -> int:
        count = 0
        for one in self.made:
            with suppress(sqlite3.ProgrammingError):
                one.execute("SELECT 1")
                count += 1
        return count


def in_threads(count: int, action: Callable[[], object]) -> None:
    threads = [threading.Thread(target=action) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_one_after_another_is_one_connection() -> None:
    opened = Opened()
    for _ in range(5):
        with opened.pool.lent() as connection:
            connection.execute("SELECT 1")
    assert len(opened.made) == 1


def test_many_threads_share_a_few_and_fewer_stay_open() -> None:
    opened, most, now, lock = Opened(), [0], [0], threading.Lock()

    def use() -> None:
        for _ in range(5):
            with opened.pool.lent() as connection:
                with lock:
                    now[0] += 1
                    most[0] = max(most[0], now[0])
                connection.execute("SELECT 1")
                with lock:
                    now[0] -= 1

    in_threads(40, use)
    assert most[0] <= MOST_LENT
    assert opened.open_now() <= MOST_IDLE


def test_when_all_are_in_use_the_next_waits_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "WAIT_TIMEOUT_S", 0.05)
    opened = Opened()
    users = [opened.pool.lent() for _ in range(MOST_LENT)]
    for user in users:
        user.__enter__()
    with pytest.raises(LibraryError, match="ask again"), opened.pool.lent():
        pass
    users[0].__exit__(None, None, None)
    with opened.pool.lent() as connection:
        connection.execute("SELECT 1")


def test_one_that_failed_is_not_lent_again() -> None:
    opened = Opened()
    with pytest.raises(sqlite3.OperationalError), opened.pool.lent() as connection:
        connection.execute("SELECT nothing FROM nowhere")
    assert opened.open_now() == 0
    with pytest.raises(KeyError), opened.pool.lent():
        raise KeyError  # of the caller
    assert opened.open_now() == 1


def test_closed_while_one_is_lent() -> None:
    opened = Opened()
    with opened.pool.lent() as connection:
        opened.pool.close()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert opened.open_now() == 0
    with opened.pool.lent() as connection:  # and opens itself again
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert opened.open_now() == 1
    opened.pool.close()
    assert opened.open_now() == 0


@pytest.mark.skipif(not HAS_DESCRIPTORS, reason="no /proc here")
def test_threads_that_come_and_go_leave_no_descriptor(filled: Store) -> None:
    reader = CatalogReader.open(filled.path / CATALOG_FILE)
    assert reader is not None

    def ask() -> None:
        with reader.begin() as connection:
            assert read(connection, "SELECT count(*) FROM vectors")

    reader.close()
    filled.close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        in_threads(10, ask)
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * MOST_LENT  # a catalog and its log each
    reader.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_reader_is_closed_in_the_middle_of_a_transaction(filled: Store) -> None:
    reader = CatalogReader.open(filled.path / CATALOG_FILE)
    assert reader is not None
    with reader.begin() as connection:
        rows = iter(connection.execute("SELECT id FROM vectors"))
        next(rows)
        closing = threading.Thread(target=reader.close)
        closing.start()
        closing.join(10)
        assert len(list(rows)) > 2  # a crash of the process, once
    with reader.begin() as connection:
        assert read(connection, "SELECT count(*) FROM vectors")
    reader.close()
