"""No client can hold up the others: not by silence, slowness, size, number, nor by leaving."""

from __future__ import annotations

import errno
import json
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmsearch.server import client, connections, desk
from mmsearch.server.connections import MOST_CLIENTS
from mmsearch.server.desk import MOST_WAITING
from tests.mmsearch.server.stand import Stand, answered, connected, question, running

pytestmark = pytest.mark.skipif(not client.HAS_SOCKETS, reason="no Unix sockets here")


def is_closed(line: socket.socket, within_s: float) -> bool:
    """Whether the server has ended this connection."""
    readable, _, _ = select.select([line], [], [], within_s)
    try:
        return bool(readable) and line.recv(1) == b""
    except ConnectionError:
        return True


def until(true: Callable[[], object], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a machine with other work must not be taken for a slow search."""
    monkeypatch.setattr(desk, "WAIT_TIMEOUT_S", 10.0)


def is_answered(path: Path) -> bool:
    """Whether a client is, in the end: on a machine with other work one may be told that the server is busy."""
    until(lambda: client.ask(path, ["c"]) is not None)
    return True


def test_a_first_sign_comes_at_once(served: Stand) -> None:
    served.go.clear()
    with connected(served.path, question(served.path)) as line:
        assert client.read_line(line, 10) == client.ACCEPTED
        served.go.set()
        assert "hits" in json.loads(client.read_line(line, 10))


def test_a_ping_is_answered_while_a_search_runs(served: Stand) -> None:
    served.go.clear()
    with connected(served.path, question(served.path)) as line:
        until(served.begun.is_set)
        assert client.is_served(served.path)
        served.go.set()
        assert "hits" in answered(line)


def test_behind_a_slow_search_a_client_searches_itself_soon(served: Stand) -> None:
    served.go.clear()
    with connected(served.path, question(served.path)) as slow:
        until(served.begun.is_set)
        seconds = []
        for _ in range(4):  # the first waits for its turn, the others are told at once
            started_s = time.monotonic()
            assert client.ask(served.path, ["b"]) is None
            seconds.append(time.monotonic() - started_s)
        assert max(seconds) < desk.WAIT_TIMEOUT_S + 0.8
        assert min(seconds) < 0.4
        served.go.set()
        assert "hits" in answered(slow)
    assert is_answered(served.path)
    assert ["b"] not in [call[1] for call in served.calls]


@pytest.mark.usefixtures("patient")
def test_who_does_not_fit_into_the_row_is_told_at_once(served: Stand) -> None:
    served.go.clear()
    lines = [connected(served.path, question(served.path))]
    until(served.begun.is_set)
    lines += [connected(served.path, question(served.path)) for _ in range(MOST_WAITING + 1)]
    started_s = time.monotonic()
    assert answered(lines[-1]) == {"busy": True}
    assert time.monotonic() - started_s < 4
    served.go.set()
    assert "hits" in answered(lines[0])
    for line in lines:
        line.close()


@pytest.mark.usefixtures("patient")
def test_questions_of_clients_that_left_are_not_searched_for(served: Stand) -> None:
    served.go.clear()
    with connected(served.path, question(served.path, texts=["first"])) as first:
        until(served.begun.is_set)
        for _ in range(MOST_WAITING):
            connected(served.path, question(served.path, texts=["gone"])).close()
        with connected(served.path, question(served.path, texts=["last"])) as last:
            assert client.read_line(last, 10) == client.ACCEPTED
            served.go.set()
            assert "hits" in answered(first)
            assert "hits" in answered(last)
    assert [call[1] for call in served.calls] == [["first"], ["last"]]


def test_idle_connections_make_way(served: Stand) -> None:
    lines = [connected(served.path) for _ in range(3 * MOST_CLIENTS)]
    assert is_answered(served.path)
    assert is_closed(lines[0], 5)  # the oldest went first
    for line in lines:
        line.close()


def test_a_byte_now_and_then_holds_nothing(served: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "QUESTION_TIMEOUT_S", 0.4)
    with connected(served.path) as slow:
        started_s = time.monotonic()
        closed = False
        while not closed and time.monotonic() - started_s < 5:
            try:
                slow.send(b"{")
            except OSError:
                break
            closed = is_closed(slow, 0.1)
        assert 0.3 < time.monotonic() - started_s < 2
        assert is_answered(served.path)


def test_an_answer_that_is_not_taken_holds_nothing(served: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_TIMEOUT_S", 0.3)
    long = "x" * 4000
    with connected(served.path, question(served.path, texts=[long] * 250)) as line:
        until(lambda: served.calls)
        time.sleep(1)  # 1 MB of answer does not fit into the socket
        data = b""
        while part := line.recv(1 << 16):
            data += part
        assert not data.endswith(b"]}\n")
    assert is_answered(served.path)


def test_a_question_without_an_end_is_declined(served: Stand) -> None:
    with connected(served.path) as line:
        part, sent = b"x" * (1 << 16), 0
        try:
            while sent < 64 << 20:
                sent += line.send(part)
        except OSError:  # the server reads no more of it
            pass
        assert sent <= client.MAX_QUESTION_BYTES + (2 << 20)
    with connected(served.path, b"[" * 900_000 + b"\n") as line:
        assert "declined" in answered(line)
    assert is_answered(served.path)


def test_a_search_counts_as_activity(library: Stand) -> None:
    with running(library, idle_s=0.3) as server:
        library.begun.clear()
        library.go.clear()
        with connected(library.path, question(library.path)) as line:
            until(library.begun.is_set)
            time.sleep(1.2)
            assert server.thread.is_alive()
            library.go.set()
            assert "hits" in answered(line)


def test_without_descriptors_it_waits_and_goes_on(served: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = []
    accept = socket.socket.accept

    def none_left(self: socket.socket) -> tuple[socket.socket, object]:
        if len(failed) < 3:
            failed.append(time.monotonic())
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", none_left)
    assert is_answered(served.path)
    assert failed[2] - failed[0] > connections.PAUSE_S  # and no loop without a pause


@pytest.mark.parametrize("how", ["removed", "replaced", "its folder removed"])
def test_a_socket_that_is_gone_ends_the_server(
    library: Stand, runtime: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = client.socket_path(library.path)
    with running(library, idle_s=0) as server:
        if how == "its folder removed":
            path.parent.rename(runtime / "elsewhere")
        else:
            path.unlink()
        other = socket.socket(socket.AF_UNIX)
        if how == "replaced":
            other.bind(str(path))
        server.thread.join(10)
        assert not server.thread.is_alive()
        assert path.exists() == (how == "replaced")
    assert [record.getMessage() for record in caplog.records] == [f"the socket {path} is gone; the server ends"]
    other.close()


@pytest.mark.usefixtures("patient")
def test_what_was_asked_is_answered_before_the_end(library: Stand) -> None:
    with running(library, idle_s=0) as server:
        library.begun.clear()
        library.go.clear()
        lines = [connected(library.path, question(library.path)) for _ in range(3)]
        until(library.begun.is_set)
        client.socket_path(library.path).unlink()
        threading.Timer(0.2, library.go.set).start()
        assert [list(answered(line)) for line in lines] == [["hits"]] * 3
        server.thread.join(10)
        assert not server.thread.is_alive()
    for line in lines:
        line.close()


def test_the_end_does_not_wait_for_ever(library: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "GRACE_S", 0.3)
    with running(library, idle_s=0) as server:
        library.begun.clear()
        library.go.clear()
        with connected(library.path, question(library.path)) as line:
            assert library.begun.wait(10)
            client.socket_path(library.path).unlink()
            server.thread.join(10)
            assert not server.thread.is_alive()
            assert answered(line) == {}
