"""A client trusts only a socket of this user alone, and takes anything else for no server."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mmsearch import Hit
from mmsearch.server import client
from tests.e2e.server_thread import runtime

__all__ = ["runtime"]

pytestmark = pytest.mark.skipif(not client.HAS_SOCKETS, reason="no Unix sockets here")
Answering = Callable[[bytes], list[dict[str, Any]]]


@pytest.fixture
def answering(runtime: Path, tmp_path: Path) -> Iterator[Answering]:
    """Listen on the socket of the library in `tmp_path`, give every question this answer, and keep the questions."""
    path = client.socket_path(tmp_path)
    path.parent.mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen()

    def start(answer: bytes) -> list[dict[str, Any]]:
        questions: list[dict[str, Any]] = []

        def run() -> None:
            line, _ = listener.accept()
            with line:
                questions.append(json.loads(client.read_line(line)))
                line.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return questions

    yield start
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
    "answer", [b'{"declined": "another version"}\n', b"[]\n", b"nonsense\n", b'{"hits"', b"\xff\xfe\n", b""]
)
def test_what_is_no_answer_is_no_server(answering: Answering, tmp_path: Path, answer: bytes) -> None:
    answering(answer)
    assert client.ask(tmp_path, ["red"]) is None


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
