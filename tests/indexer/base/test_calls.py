"""A close waits for the calls of other threads, never for its own, and not for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from indexer.base import calls as calling
from indexer.base.calls import Calls
from indexer.base.errors import LibraryClosed


def started(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


class Told:
    """Two threads: one in a call until `end`, one that closes; `order` is what they did."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.order: list[str] = []
        self.begun, self.end = threading.Event(), threading.Event()
        self.caller = started(self._call)
        assert self.begun.wait(10)

    def _call(self) -> None:
        with self.calls.running():
            self.begun.set()
            assert self.end.wait(20)
            self.order.append("call")

    def close(self) -> None:
        with self.calls.closing():
            self.order.append("close")


def test_a_close_waits_for_a_call_and_the_next_call_for_the_close() -> None:
    told = Told(Calls())
    closer = started(told.close)
    closer.join(0.1)
    assert told.order == []

    def again() -> None:
        with told.calls.running():
            told.order.append("again")

    another = started(again)
    another.join(0.1)
    assert told.order == []
    told.end.set()
    for thread in (closer, another):
        thread.join(10)
    assert told.order == ["call", "close", "again"]


def test_a_call_may_call_and_close_without_waiting_for_itself() -> None:
    calls = Calls()
    with calls.running():
        with calls.running():
            pass
        with calls.closing():
            pass
    with calls.closing():
        pass


def test_a_call_that_takes_long_is_not_waited_for_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "CLOSE_TIMEOUT_S", 0.1)
    told = Told(Calls())
    before = time.monotonic()
    told.close()
    assert 0.05 < time.monotonic() - before < 5
    told.end.set()
    told.caller.join(10)
    assert told.order == ["close", "call"]


def test_a_call_is_told_when_a_close_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "CLOSE_TIMEOUT_S", 0.02)
    calls, raised = Calls(), []

    def call() -> None:
        try:
            with calls.running():
                pass
        except LibraryClosed as error:
            raised.append(error)

    with calls.closing():
        started(call).join(10)
    assert len(raised) == 1


def test_an_error_ends_a_call() -> None:
    calls = Calls()
    with pytest.raises(KeyError), calls.running():
        raise KeyError
    with pytest.raises(KeyError), calls.closing():
        raise KeyError
    with calls.running():
        pass
