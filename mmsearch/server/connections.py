"""The clients of a server: one thread reads what they ask and writes what they are answered, and waits for nobody.

In: a listening socket and `Answers`. Out: for each connection one question and its answer. What one client can hold is
bounded: bytes, seconds for a whole message, and of all connections the oldest that asks nothing goes for a new one.
Next: `serve.py`, which begins and ends it.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from mmsearch.server.answers import Answers, declined
from mmsearch.server.client import ACCEPTED, MAX_QUESTION_BYTES
from mmsearch.server.desk import WAIT_TIMEOUT_S, Asked, Desk
from mmsearch.server.sockets import BACKLOG, Listening, is_same_user

MOST_CLIENTS: Final = 64
DESCRIPTORS_SHARE: Final = 4  # of those that a process may have, clients take one in so many: 256 on some systems
QUESTION_TIMEOUT_S: Final = 2.0  # for a whole question
ANSWER_TIMEOUT_S: Final = 5.0  # for a whole answer to be taken
GRACE_S: Final = 2.0  # to answer what was asked before the end
PAUSE_S: Final = 0.1  # where no connection can be accepted
TICK_S: Final = 0.5
BUSY: Final = b'{"busy": true}\n'
PART_BYTES: Final = 1 << 16

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Client:
    """Asks (`until_s` is set), stands in the row (it is not), or is answered (it is, and `unsent` too)."""

    line: socket.socket
    until_s: float | None
    heard: bytearray = field(default_factory=bytearray)
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))


class Connections:
    """All connections of a server, from `run` until it returns."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._clients: dict[socket.socket, _Client] = {}  # the oldest first
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._desk = Desk(answers.answer, self._wake)
        self._asked_s = time.monotonic()
        self._paused_until_s: float | None = None
        self._stops = 0
        self._most_clients = min(MOST_CLIENTS, max(_descriptors() // DESCRIPTORS_SHARE, 4))

    def stop(self) -> None:
        """Answer what is asked and end, within `GRACE_S`; called again, end now. For handlers of signals, too."""
        self._stops += 1
        self._wake()

    def run(self, listening: Listening, idle_s: float) -> bool:
        """Until `stop`, until the socket is gone, or `idle_s` seconds without a question; 0 are for ever.

        Returns: whether the last search has ended.
        """
        self._asked_s = time.monotonic()
        self._selector.register(listening.line, selectors.EVENT_READ)
        end_s: float | None = None
        try:
            while end_s is None or (time.monotonic() < end_s and self._stops < 2 and self._clients):
                for key, events in self._selector.select(self._wait_s()):
                    self._happened(key, events, listening)
                self._hand_out()
                self._expire(listening)
                if end_s is None and self._is_over(listening, idle_s):
                    end_s = time.monotonic() + GRACE_S
                    self._hear_no_more(listening)
        finally:
            now_s = time.monotonic()
            ended = self._desk.close(max(0.0, (end_s or now_s) - now_s) if self._stops < 2 else 0.0)
            for client in list(self._clients.values()):
                self._drop(client)
            for one in (self._selector, self._woken, self._waker):
                one.close()
        return ended

    def _is_over(self, listening: Listening, idle_s: float) -> bool:
        now_s = time.monotonic()
        if not self._desk.is_idle():
            self._asked_s = now_s
        if not self._stops and not listening.is_there():
            log.warning("the socket %s is gone; the server ends", listening.path)
            return True
        if idle_s and now_s - self._asked_s > idle_s:
            log.info("no question for %.0f s", idle_s)
            return True
        return self._stops > 0

    def _hear_no_more(self, listening: Listening) -> None:
        self._accept(listening)  # who has asked by now is answered
        if self._paused_until_s is None:
            self._selector.unregister(listening.line)
        self._paused_until_s = None
        listening.close()
        for client in self._asking():
            with self._dropping(client):
                self._read(client)
        for client in self._asking():
            self._drop(client)

    def _asking(self) -> list[_Client]:
        return [one for one in self._clients.values() if one.until_s is not None and not one.unsent]

    def _wait_s(self) -> float:
        """Until the next clock runs out."""
        now_s = time.monotonic()
        clocks = [client.until_s for client in self._clients.values() if client.until_s is not None]
        if not self._desk.is_idle():
            clocks.append(now_s + WAIT_TIMEOUT_S / 10)  # who has waited for too long is told
        if self._paused_until_s is not None:
            clocks.append(self._paused_until_s)
        return max(0.0, min([*clocks, now_s + TICK_S]) - now_s)

    def _happened(self, key: selectors.SelectorKey, events: int, listening: Listening) -> None:
        if key.fileobj is self._woken:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(PART_BYTES)
        elif key.fileobj is listening.line:
            self._accept(listening)
        elif (client := self._clients.get(key.data)) is not None:  # else dropped since
            with self._dropping(client):
                self._write(client) if events & selectors.EVENT_WRITE else self._read(client)

    def _accept(self, listening: Listening) -> None:
        for _ in range(BACKLOG):  # of a crowd, so that one who asks is not kept out
            try:
                line, _ = listening.line.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:  # no descriptor or no memory left
                log.info("no connection can be accepted now: %s", error)
                if self._make_room(1):
                    continue
                if self._paused_until_s is None:
                    self._selector.unregister(listening.line)
                self._paused_until_s = time.monotonic() + PAUSE_S
                return
            self._begin(line)

    def _begin(self, line: socket.socket) -> None:
        self._make_room(len(self._clients) + 1 - self._most_clients)
        line.setblocking(False)
        client = self._clients[line] = _Client(line, time.monotonic() + QUESTION_TIMEOUT_S)
        with self._dropping(client):
            self._selector.register(line, selectors.EVENT_READ, line)
            if is_same_user(line):
                self._read(client)  # most have asked by now
            else:
                self._drop(client)

    def _make_room(self, count: int) -> int:
        """Drop so many that stand in no row: first those that still ask, the oldest first. Returns how many."""
        idle = [client for client in self._clients.values() if client.until_s is not None]
        chosen = sorted(idle, key=lambda one: bool(one.unsent))[: max(count, 0)]
        for client in chosen:
            self._drop(client)
        return len(chosen)

    def _read(self, client: _Client) -> None:
        try:
            part = client.line.recv(PART_BYTES)
        except BlockingIOError:
            return
        client.heard += part
        end = client.heard.find(b"\n", len(client.heard) - len(part))
        if end >= 0:
            self._hear(client, bytes(client.heard[: end + 1]))
        elif not part:
            self._drop(client)
        elif len(client.heard) > MAX_QUESTION_BYTES:
            self._reply(client, declined(f"a question has {MAX_QUESTION_BYTES} bytes at most"))

    def _hear(self, client: _Client, message: bytes) -> None:
        client.heard.clear()
        question = self._answers.hear(message)
        self._asked_s = time.monotonic()
        if isinstance(question, bytes):
            self._reply(client, question)
        elif not self._desk.put(Asked(question, client.line, self._asked_s)):
            self._reply(client, BUSY)
        else:
            client.until_s = None
            self._selector.unregister(client.line)
            with contextlib.suppress(OSError):  # it has left: the desk will see
                client.line.send(ACCEPTED)

    def _hand_out(self) -> None:
        found = self._desk.answers() + [(asked, BUSY) for asked in self._desk.late(time.monotonic())]
        for asked, answer in found:
            client = self._clients[asked.line]
            with self._dropping(client):
                self._selector.register(client.line, selectors.EVENT_READ, client.line)
                self._reply(client, answer)
        if found:
            self._asked_s = time.monotonic()

    def _reply(self, client: _Client, answer: bytes) -> None:
        client.until_s = time.monotonic() + ANSWER_TIMEOUT_S
        client.unsent = memoryview(answer)
        self._selector.modify(client.line, selectors.EVENT_WRITE, client.line)
        self._write(client)

    def _write(self, client: _Client) -> None:
        with contextlib.suppress(BlockingIOError):
            while client.unsent:
                client.unsent = client.unsent[client.line.send(client.unsent) :]
        if not client.unsent:
            self._drop(client)

    def _expire(self, listening: Listening) -> None:
        now_s = time.monotonic()
        for client in [one for one in self._clients.values() if one.until_s is not None and one.until_s <= now_s]:
            self._drop(client)
        if self._paused_until_s is not None and self._paused_until_s <= now_s:
            self._paused_until_s = None
            self._selector.register(listening.line, selectors.EVENT_READ)

    @contextlib.contextmanager
    def _dropping(self, client: _Client) -> Iterator[None]:
        """A client whose connection fails is dropped: it has left."""
        try:
            yield
        except OSError:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        with contextlib.suppress(KeyError, ValueError):  # stands in the row
            self._selector.unregister(client.line)
        self._clients.pop(client.line, None)
        client.line.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")


def _descriptors() -> int:
    """How many files this process may have open."""
    import resource  # only where there are Unix sockets

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_CLIENTS * DESCRIPTORS_SHARE if most == resource.RLIM_INFINITY else most
