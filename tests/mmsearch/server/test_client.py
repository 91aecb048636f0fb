"""A client trusts only a socket of this user alone, and takes anything else for no server."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mmsearch import Hit
from mmsearch.server import client

pytestmark = pytest.mark.skipif(not client.HAS_SOCKETS, reason="no Unix sockets here")
Answering = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def answering(runtime: Path, tmp_path: Path) -> Iterator[Answering]:
    """Listen on the socket of the library in `tmp_path`, give every question this answer, and keep the questions."""
    path = client.socket_path(tmp_path)
    path.parent.mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen()

    def start(answer: bytes, pause_s: float = 0.0) -> list[dict[str, Any]]:
        questions: list[dict[str, Any]] = []

        def run() -> None:
            with contextlib.suppress(OSError, ValueError), listener.accept()[0] as line:  # the client may have left
                questions.append(json.loads(client.read_line(line)))
                for part in answer.split(b"|"):
                    line.sendall(part)
                    time.sleep(pause_s if len(answer) > len(part) else 0)

        threading.Thread(target=run, daemon=True).start()
        return questions

    yield start
    listener.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for a client
    listener.close()


def test_a_question_and_its_answer(answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hit = ["/p/a.jpg", 0.5, "image", None, "2019-05-31T18:00:00", 1.5, 2.5, "X100", 3.0]
    questions = answering(json.dumps({"hits": [[hit], []]}).encode() + b"\n")
    found = client.ask(
        tmp_path, ["red", "blue"], image=Path("q.png"), k=3, within="image", folder=Path("f"), since="2019"
    )
    taken_at = datetime(2019, 5, 31, 18)
    assert found == [[Hit(Path("/p/a.jpg"), 0.5, 1, "image", None, taken_at, 1.5, 2.5, "X100", 3.0)], []]
    (question,) = questions
    assert (question["texts"], question["k"], question["within"]) == (["red", "blue"], 3, "image")
    assert (question["image"], question["folder"]) == (str(tmp_path / "q.png"), str(tmp_path / "f"))  # from here
    assert question["protocol"] == client.PROTOCOL


@pytest.mark.parametrize(
    "answer",
    [
        b'{"declined": "another version"}\n',
        b"[]\n",
        b"nonsense\n",
        b'{"hits"',
        b"\xff\xfe\n",
        b"",
        b'{"busy": true}\n',
        b'{"accepted": true}\n',
        b'{"accepted": true}\n{"busy": true}\n',
        b"[" * 50_000 + b"\n",
    ],
)
def test_what_is_no_answer_is_no_server(answering: Answering, tmp_path: Path, answer: bytes) -> None:
    answering(answer)
    assert client.ask(tmp_path, ["red"]) is None


def seconds_to_ask(library: Path, *texts: str) -> float:
    """Until the client knows that there is no answer."""
    started_s = time.monotonic()
    assert client.ask(library, texts or ("red",)) is None
    return time.monotonic() - started_s


def test_an_answer_in_pieces_after_the_first_sign(answering: Answering, tmp_path: Path) -> None:
    answering(b'{"acce|pted": true}\n|{"hits"|: [[]]}\n', pause_s=0.1)
    assert client.ask(tmp_path, ["red"]) == [[]]
    answering(b'{"accepted": true}\n{"hits": [[]]}\n')
    assert client.ask(tmp_path, ["red"]) == [[]]


def test_without_a_first_sign_it_waits_half_a_second(answering: Answering, tmp_path: Path) -> None:
    assert seconds_to_ask(tmp_path) < client.SIGN_TIMEOUT_S + 0.4  # it listens, and nobody accepts
    answering(b"|".join(b"a" for _ in range(200)), pause_s=0.1)  # never silent for long, and never done
    assert seconds_to_ask(tmp_path) < client.SIGN_TIMEOUT_S + 0.4


def test_an_answer_that_does_not_come_is_not_waited_for_long(
    answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.3)
    answering(b'{"accepted": true}\n|' + b"|".join(b" " for _ in range(200)), pause_s=0.1)
    assert 0.25 < seconds_to_ask(tmp_path) < 1.2


def test_what_takes_longer_than_a_model_to_load_is_not_asked(answering: Answering, tmp_path: Path) -> None:
    questions = answering(b'{"hits": []}\n')
    assert client.ask(tmp_path, ["red"] * (client.MOST_TEXTS + 1)) is None
    assert client.ask(tmp_path, ["x" * client.MAX_QUESTION_BYTES]) is None
    assert questions == []


def test_a_ping(answering: Answering, tmp_path: Path) -> None:
    answering(b'{"pong": true}\n')
    assert client.is_served(tmp_path)
    answering(b'{"pong": 1}\n')
    assert not client.is_served(tmp_path)


def test_a_socket_that_others_may_use_is_not_asked(answering: Answering, tmp_path: Path) -> None:
    path = client.socket_path(tmp_path)
    assert client.is_private(path)
    path.chmod(0o660)
    assert not client.is_private(path)
    assert client.ask(tmp_path, ["red"]) is None
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))
    assert not client.is_private(path)


def test_nobody_listens(runtime: Path, tmp_path: Path) -> None:
    assert client.ask(tmp_path, ["red"]) is None
    assert not client.is_served(tmp_path)


def test_the_socket_follows_from_the_real_folder(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "library")
    path = client.socket_path(tmp_path / "library")
    assert path == client.socket_path(tmp_path / "link")
    assert path.parent == runtime / "mmsearch"
    assert path != client.socket_path(tmp_path)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert client.runtime_folder().name == f"mmsearch-{os.getuid()}"


def test_a_message_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x" * 100)
        monkeypatch.setattr(client, "MAX_MESSAGE_BYTES", 10)
        left.close()
        with pytest.raises(ValueError, match="without an end"):
            client.read_line(right)
