"""A server makes answers faster and never changes them; it ends by itself; other users cannot connect."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mmsearch import Library
from mmsearch.errors import LibraryError, LibraryLocked, LibraryNotFound
from mmsearch.server import client
from tests.e2e.conftest import Run
from tests.e2e.processes import environment
from tests.e2e.runner import load_fake
from tests.e2e.server_thread import Served
from tests.fakes import FakeEncoder, paint

pytestmark = [
    pytest.mark.skipif(not client.HAS_SOCKETS, reason="no Unix sockets here"),
    pytest.mark.usefixtures("runtime"),
]


def lines(answer: object) -> list[str]:
    return str(getattr(answer, "out", "")).splitlines()


def test_the_command_line_finds_it_and_answers_the_same(
    run: Run, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (["red"], ["red", "--in", "image", "--json"], ["whale", "--in", "text"], ["blue", "-k", "2", "--paths"])
    alone = [run("search", *arguments) for arguments in asked]
    Served(library)

    def not_here(name: str, device: str) -> FakeEncoder:
        raise AssertionError("answered in this process")

    monkeypatch.setattr("mmsearch.cli.options.open_library", not_here)
    monkeypatch.setattr("mmsearch.cli.options.open_library", not_here)
    assert [run("search", *arguments) for arguments in asked] == alone
    assert len(lines(run("search", "red", "--image", library.parent.parent / "photos" / "blue.png"))) > 1
    queries = library.parent / "q.txt"
    queries.write_text("red\nblue\n")
    assert len(lines(run("search", "--queries", queries, "--json"))) == 2
    assert run("search", "red", "--device", "cpu").code == 2  # asked for something else: not the server's to answer


def test_only_this_user_may_ask(library: Path, runtime: Path) -> None:
    Served(library)
    path = client.socket_path(library)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
    assert client.is_served(library)
    for opened in (path.parent, path):
        mode = stat.S_IMODE(os.stat(opened).st_mode)
        opened.chmod(mode | 0o020)
        assert client.ask(library, ["red"]) is None  # anybody could have put it there
        opened.chmod(mode)
    assert client.ask(library, ["red"]) is not None
    path.parent.chmod(0o755)
    with pytest.raises(LibraryError, match="chmod 700"), Library.open(library) as second:
        second.serve()


def test_one_server_a_library(library: Path) -> None:
    Served(library)
    with pytest.raises(LibraryLocked, match=f"process {os.getpid()}"), Library.open(library) as second:
        second.serve()
    assert client.is_served(library)


def test_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFound), Library.open(tmp_path / "none") as opened:
        opened.serve()
    assert client.ask(tmp_path / "none", ["red"]) is None


def test_what_a_dead_server_left_is_no_obstacle(run: Run, library: Path) -> None:
    path = client.socket_path(library)
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        path.chmod(0o600)
    assert client.ask(library, ["red"]) is None
    assert run("search", "red").code == 0
    Served(library)
    assert client.is_served(library)


def test_it_ends_when_nobody_asks(library: Path) -> None:
    served = Served(library, idle_s=0.2)
    served.thread.join(10)
    assert not served.thread.is_alive()
    assert not served.failure
    assert not client.socket_path(library).exists()


def test_it_follows_the_library(run: Run, library: Path, photos: Path) -> None:
    Served(library)

    def names() -> set[str]:
        answers = client.ask(library, ["purple"], k=50)
        assert answers is not None
        return {hit.path.name for hit in answers[0]}

    before = names()
    paint(photos / "new.png", "purple", seed=9)
    assert run("index", photos).code == 0
    assert names() == before | {"new.png"}
    (photos / "red.png").unlink()
    assert run("index", photos).code == 0
    assert names() == before - {"red.png"} | {"new.png"}
    assert run("rebuild", "--model", "other").code == 0  # another model, in other units
    assert names() == before - {"red.png"} | {"new.png"}
    assert client.ask(library, ["red"])[0][0].score == pytest.approx(_score_here(library), abs=1e-6)
    shutil.rmtree(library)
    assert client.ask(library, ["red"]) is None
    (photos / "blue.png").unlink()
    assert run("index", photos).code == 0  # a new library under the same name
    assert names() == before - {"red.png", "blue.png"} | {"new.png"}


def _score_here(library: Path) -> float:
    with Library.open(library) as opened:
        return opened.search("red")[0].score


def test_another_version_and_nonsense_are_declined(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Served(library)
    for question in (b"{}\n", b"[]\n", b"nonsense\n", b'{"protocol": "1 0.0.0"}\n', b"\xff\xfe\n"):
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(client.socket_path(library)))
            line.sendall(question)
            assert "declined" in json.loads(client.read_line(line))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(client.socket_path(library)))  # and says nothing: others are answered meanwhile
        assert client.ask(library, ["red"]) is not None
    assert client.ask(library, [" "]) is None  # an error is told by whoever asked
    with monkeypatch.context() as patch:
        patch.setattr(client, "PROTOCOL", "1 9.9.9")
        assert client.ask(library, ["red"]) is None
    assert client.ask(library, ["red"]) is not None


def test_as_a_process_until_it_is_told_to_end(home: Path, library: Path, runtime: Path) -> None:
    env = {**environment(home), "XDG_RUNTIME_DIR": str(runtime)}
    command = [sys.executable, "-m", "tests.e2e.runner", "serve", "--socket"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        assert "answering on" in server.stderr.readline()
        assert client.ask(library, ["red"]) is not None
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    assert not client.socket_path(library).exists()


def test_without_the_option(run: Run) -> None:
    answer = run("serve")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)


def test_the_fake_is_the_model_in_these_tests() -> None:
    assert load_fake("default", "cpu").fingerprint == FakeEncoder(name="default").fingerprint
