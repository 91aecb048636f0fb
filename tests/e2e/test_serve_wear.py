"""A server as a process: told to end while it answers, short of descriptors, asked often, and by everybody at once."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmsearch import Library
from mmsearch.server import client
from tests.e2e.processes import environment
from tests.fakes import FakeEncoder, paint

HAS_PROC = Path("/proc/self/fd").is_dir()
Start = Callable[..., subprocess.Popen[str]]

pytestmark = [
    pytest.mark.skipif(not client.HAS_SOCKETS, reason="no Unix sockets here"),
    pytest.mark.usefixtures("runtime"),
]


@pytest.fixture
def start(home: Path, runtime: Path) -> Iterator[Start]:
    """Start a server and wait until it answers."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        module: str = "tests.e2e.runner", descriptors: int = 0, wait: bool = True, **more: str
    ) -> subprocess.Popen[str]:
        def before() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        command = [sys.executable, "-m", module, "serve", "--socket"]
        env = environment(home, XDG_RUNTIME_DIR=str(runtime), **more)
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=before)
        started.append(process)
        assert process.stderr is not None
        if wait:
            assert "answering on" in process.stderr.readline()
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], within_s: float) -> None:
    """It ends by itself, in order, and says nothing."""
    assert process.wait(within_s) == 0, process.communicate()
    assert process.stderr is not None
    assert process.stderr.read() == ""


def is_answered(library: Path) -> bool:
    """Whether a client is, in the end: on a machine with other work one may be told that the server is busy."""
    deadline_s = time.monotonic() + 20
    while client.ask(library, ["red"]) is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return True


class Asking(threading.Thread):
    """One question; `messages` are what came back until the end of the connection."""

    def __init__(self, library: Path) -> None:
        super().__init__(daemon=True)
        self.messages: list[dict[str, object]] = []
        self.accepted = threading.Event()
        question = {"protocol": client.PROTOCOL, "library": os.path.realpath(library), "texts": ["red"], "k": 3}
        question |= dict.fromkeys(("image", "within", "folder", "since", "until"))
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(str(client.socket_path(library)))
        self._line.sendall(json.dumps(question).encode() + b"\n")
        self.start()

    def run(self) -> None:
        messages = client.Messages(self._line)
        try:
            while True:
                self.messages.append(json.loads(messages.read(time.monotonic() + 30)))
                self.accepted.set()
        except (OSError, ValueError):
            self._line.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_asked_is_answered_before_it_ends(library: Path, start: Start, number: signal.Signals) -> None:
    server = start(FAKE_DELAY_S="0.7")
    asking = Asking(library)
    assert asking.accepted.wait(20)
    server.send_signal(number)
    ended(server, 20)
    asking.join(20)
    assert [list(message) for message in asking.messages] == [["accepted"], ["hits"]]
    assert not client.socket_path(library).exists()


def test_what_takes_longer_than_two_seconds_is_left(library: Path, start: Start) -> None:
    server = start(FAKE_DELAY_S="4")
    asking = Asking(library)
    assert asking.accepted.wait(20)
    begun_s = time.monotonic()
    server.send_signal(signal.SIGTERM)
    ended(server, 20)
    assert 1.5 < time.monotonic() - begun_s < 3.7
    asking.join(20)
    assert [list(message) for message in asking.messages] == [["accepted"]]


def test_a_second_signal_is_not_kept_waiting(library: Path, start: Start) -> None:
    server = start(FAKE_DELAY_S="4")
    asking = Asking(library)
    assert asking.accepted.wait(20)
    begun_s = time.monotonic()
    server.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    server.send_signal(signal.SIGINT)
    ended(server, 20)
    assert time.monotonic() - begun_s < 1.7


def test_a_hung_server_is_not_waited_for(library: Path, start: Start) -> None:
    server = start()
    server.send_signal(signal.SIGSTOP)
    begun_s = time.monotonic()
    assert client.ask(library, ["red"]) is None  # was asked for thirty seconds
    assert time.monotonic() - begun_s < client.SIGN_TIMEOUT_S + 0.5
    server.send_signal(signal.SIGCONT)
    assert is_answered(library)


def test_told_to_end_before_it_answers(library: Path, start: Start) -> None:
    server = start(FAKE_DELAY_S="30", wait=False)
    lock = client.socket_path(library).with_suffix(".lock")
    deadline_s = time.monotonic() + 20
    while not (lock.exists() and lock.read_text()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    time.sleep(0.3)
    server.send_signal(signal.SIGTERM)
    ended(server, 20)


def test_told_to_end_in_the_middle_of_the_models_own_code(tmp_path: Path, home: Path, start: Start) -> None:
    """The interpreter aborts where it ends with a thread in ONNX Runtime: it did so in 14 of 15."""
    paint(tmp_path / "real" / "red.png", "red")
    with Library.open(home / "library", model="default", device="cpu") as real:
        real.index(tmp_path / "real")
    for _ in range(3):
        server = start("mmsearch")
        over = threading.Event()

        def ask(over: threading.Event = over) -> None:
            while not over.is_set():
                client.ask(home / "library", ["a red thing"] * 100)

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0.1, 0.4))
        server.send_signal(signal.SIGTERM)
        ended(server, 20)
        over.set()
        for thread in threads:
            thread.join(20)


@pytest.mark.parametrize("descriptors", [40, 128])
def test_idle_connections_take_neither_descriptors_nor_turns(library: Path, start: Start, descriptors: int) -> None:
    server = start(descriptors=descriptors)
    lines = []
    for _ in range(400):
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(2)
        try:
            line.connect(str(client.socket_path(library)))
        except (BlockingIOError, TimeoutError):  # as many wait already as the system keeps
            time.sleep(0.01)
        lines.append(line)
    assert is_answered(library)
    before_s = used_s(server.pid)
    time.sleep(1)
    assert used_s(server.pid) - before_s < 0.5  # it waits, and does not try again and again
    for line in lines:
        line.close()
    assert is_answered(library)
    server.terminate()
    ended(server, 20)


def used_s(pid: int) -> float:
    """Processor seconds of a process; none where the system does not tell."""
    if not HAS_PROC:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def grown(pid: int | str) -> tuple[int, float]:
    """Open descriptors and resident megabytes."""
    found = re.search(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return len(os.listdir(f"/proc/{pid}/fd")), int(found[1]) / 1024


@pytest.mark.skipif(not HAS_PROC, reason="no /proc here")
def test_requests_leave_nothing_behind(library: Path, start: Start) -> None:
    """`python -m tests.bench.server` asks five thousand times."""
    server = start()
    for number in range(600):
        client.ask(library, [f"red {number}"])
        if number == 100:
            early = grown(server.pid)
    late = grown(server.pid)
    assert late[0] <= early[0] + 2
    assert late[1] <= early[1] + 10


@pytest.mark.skipif(not HAS_PROC, reason="no /proc here")
def test_threads_leave_nothing_behind(library: Path) -> None:
    with Library.open(library, model=FakeEncoder(name="default")) as opened:
        for number in range(400):
            thread = threading.Thread(target=opened.search, args=("red",))
            thread.start()
            thread.join()
            if number == 50:
                early = grown("self")
        late = grown("self")
    assert late[0] <= early[0] + 2
    assert late[1] <= early[1] + 20


def test_everybody_at_once(library: Path, start: Start) -> None:
    """Honest clients among those that say nothing, or nonsense, or little, or leave: a few seconds of it."""
    server = start(descriptors=128)
    until_s = time.monotonic() + 6
    answers: list[object] = []

    def honest(dice: random.Random) -> None:
        answers.append(client.ask(library, [dice.choice(("red", "blue", "green"))]))

    def rude(dice: random.Random) -> None:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(0.2)
            line.connect(str(client.socket_path(library)))
            data = dice.choice(
                (b"", b"{", b"[" * 100_000 + b"\n", b"x" * (1 << 20), dice.randbytes(999) + b"\n", b"{}\n")
            )
            line.sendall(data)
            if dice.random() < 0.3:
                line.recv(10)

    def leaving(dice: random.Random) -> None:
        asking = Asking(library)
        if dice.random() < 0.5:
            asking.accepted.wait(0.05)
        asking._line.shutdown(socket.SHUT_RDWR)

    def repeat(act: Callable[[random.Random], None], seed: int) -> None:
        dice = random.Random(seed)
        while time.monotonic() < until_s:
            try:
                act(dice)
            except OSError:
                time.sleep(0.001)

    threads = [
        threading.Thread(target=repeat, args=(act, seed), daemon=True)
        for seed, act in enumerate((honest, honest, rude, rude, rude, leaving, leaving))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert any(answer is not None for answer in answers)
    assert is_answered(library)
    server.terminate()
    ended(server, 20)
