"""A short row before one thread: who waits for long is told, who left is passed over."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mmsearch.server import desk as desks
from mmsearch.server.answers import Question
from mmsearch.server.desk import MOST_WAITING, WAIT_TIMEOUT_S, Asked, Desk


class Clients:
    """Questions with a client each, and a desk whose thread waits for `go`."""

    def __init__(self) -> None:
        self.go, self.told = threading.Event(), threading.Event()
        self.searched: list[str] = []
        self.lines: list[socket.socket] = []
        self.desk = Desk(self._answer, self.told.set)

    def asked(self, text: str = "a", at_s: float | None = None) -> Asked:
        here, there = socket.socketpair()
        self.lines += [here, there]
        at_s = time.monotonic() if at_s is None else at_s
        return Asked(Question([text], None, 1, None, None, None, None), here, at_s)

    def leave(self, asked: Asked) -> None:
        self.lines[self.lines.index(asked.line) + 1].close()

    def _answer(self, question: Question) -> bytes:
        self.searched += question.texts
        assert self.go.wait(30)
        return b"answer\n"


@pytest.fixture
def clients() -> Iterator[Clients]:
    clients = Clients()
    yield clients
    clients.go.set()
    assert clients.desk.close(10)
    for line in clients.lines:
        line.close()


def until(true: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_a_question_is_answered_and_told(clients: Clients) -> None:
    clients.go.set()
    asked = clients.asked()
    assert clients.desk.put(asked)
    assert clients.told.wait(20)
    assert clients.desk.answers() == [(asked, b"answer\n")]
    assert clients.desk.is_idle()
    assert clients.desk.answers() == []


def test_the_row_has_an_end(clients: Clients) -> None:
    now_s = time.monotonic()
    assert clients.desk.put(clients.asked("first"))
    until(lambda: clients.searched)
    row = [clients.asked(str(number), now_s) for number in range(MOST_WAITING)]
    assert all(clients.desk.put(asked) for asked in row)
    assert not clients.desk.put(clients.asked("one more", now_s))
    assert not clients.desk.is_idle()
    clients.leave(row[3])
    assert clients.desk.put(clients.asked("in its place", now_s))
    assert clients.desk.answers() == [(row[3], b"")]


def test_nobody_stands_behind_a_search_that_takes_long(clients: Clients) -> None:
    assert clients.desk.put(clients.asked("first"))
    until(lambda: clients.searched)
    waiting = clients.asked("second")
    assert clients.desk.put(waiting)
    later_s = time.monotonic() + 2 * WAIT_TIMEOUT_S
    assert clients.desk.late(time.monotonic()) == []
    assert not clients.desk.put(clients.asked("third", later_s))
    assert clients.desk.late(later_s) == [waiting]
    clients.go.set()
    until(clients.desk.answers)
    assert clients.searched == ["first"]


def test_who_left_is_not_searched_for(clients: Clients) -> None:
    clients.desk.put(clients.asked("first"))
    until(lambda: clients.searched)
    gone, there = clients.asked("gone"), clients.asked("there")
    clients.desk.put(gone)
    clients.desk.put(there)
    clients.leave(gone)
    assert gone.has_left()
    assert not there.has_left()
    there.line.close()
    assert there.has_left()
    clients.desk.put(clients.asked("last"))
    clients.go.set()
    until(lambda: "last" in clients.searched)
    assert clients.searched == ["first", "last"]


def test_half_a_connection_is_enough(clients: Clients) -> None:
    asked = clients.asked()
    clients.lines[-1].shutdown(socket.SHUT_WR)  # as `nc -N` does after its question
    assert not asked.has_left()


def test_it_ends_with_what_it_does(clients: Clients) -> None:
    clients.desk.put(clients.asked("first"))
    clients.desk.put(clients.asked("never"))
    until(lambda: clients.searched)
    assert not clients.desk.close(0.05)
    clients.go.set()
    assert clients.desk.close(20)
    assert not clients.desk.put(clients.asked())
    assert clients.searched == ["first"]
    assert desks.WAIT_TIMEOUT_S <= 0.5  # what a search by oneself takes
