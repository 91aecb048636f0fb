"""A process that answers requests: what it says comes through, and what ends it is told."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.base.worker import Worker, WorkerDied

PROGRAM = """
import os, pathlib, signal, sys, time
from indexer.base.worker import serve
tries = pathlib.Path(sys.argv[0]).with_name("tries")
def answer(request, options):
    with tries.open("a") as file: file.write(request["do"] + " ")
    if request["do"] == "nonsense": os.write(4, b"[]\\n"); time.sleep(60)
    if request["do"] == "spin":
        while True: pass
    if request["do"].startswith("SIG"): os.kill(os.getpid(), signal.Signals[request["do"]]); time.sleep(60)
    if request["do"] == "once" and tries.read_text().count("once") == 1: os.kill(os.getpid(), signal.SIGKILL)
    if request["do"] == "exit": os._exit(3)
    if request["do"] == "hang": time.sleep(60)
    if request["do"] == "lie": os.write(4, b"{}"); os._exit(0)
    if request["do"] == "take": bytearray(1 << 32)
    print("not an answer")
    return {"said": request["do"], "options": options["word"]}, [b"one", memoryview(b"two"), b""]
serve(answer)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    (tmp_path / "program.py").write_text(PROGRAM)
    worker = Worker((str(tmp_path / "program.py"),), {"word": "x"}, timeout_s=2, memory_bytes=1 << 30)
    yield worker
    worker.close()


def test_an_answer_is_an_object_and_parts(worker: Worker) -> None:
    for word in ("a", "b"):
        assert worker.request({"do": word}) == ({"said": word, "options": "x"}, [b"one", b"two", b""])


@pytest.mark.parametrize(("do", "how"), [("exit", "exit code 3"), ("lie", "exit code 0"), ("take", "exit code 1")])
def test_a_worker_that_ends_is_started_again(worker: Worker, do: str, how: str) -> None:
    if do == "take" and sys.platform != "linux":
        pytest.skip("only Linux limits address space")
    with pytest.raises(WorkerDied) as died:
        worker.request({"do": do})
    assert not died.value.timed_out
    assert worker.process is not None
    assert worker.process.poll() is not None
    assert worker.request({"do": "a"})[0]["said"] == "a"


def test_a_worker_that_hangs_is_ended(worker: Worker) -> None:
    worker.request({"do": "a"})
    with pytest.raises(WorkerDied) as died:
        worker.request({"do": "hang"})
    assert died.value.timed_out
    assert not died.value.from_outside


@pytest.fixture
def asked(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: (tmp_path / "tries").read_text().split()


def test_a_second_process_tries_what_the_first_one_died_of(worker: Worker, asked: Callable[[], list[str]]) -> None:
    assert worker.request({"do": "a"})[0]["said"] == "a"
    assert worker.request({"do": "once"}, before=[{"do": "a"}])[0]["said"] == "once"
    assert asked() == ["a", "once", "a", "once"]


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
@pytest.mark.parametrize(
    ("do", "from_outside"),
    [
        ("SIGSEGV", False),
        ("SIGABRT", False),
        ("SIGKILL", True),
        ("SIGTERM", True),
        ("exit", False),
        ("nonsense", False),
    ],
)
def test_who_ended_it_is_told(worker: Worker, asked: Callable[[], list[str]], do: str, from_outside: bool) -> None:
    with pytest.raises(WorkerDied) as died:
        worker.request({"do": do})
    assert died.value.from_outside is from_outside
    assert not died.value.timed_out
    assert asked() == [do, do]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the state and the time of a process")
@pytest.mark.parametrize(
    ("do", "from_outside", "tries"), [("SIGSTOP", True, 2), ("hang", False, 2), ("spin", False, 1)]
)
def test_one_that_was_stopped_is_told_from_one_that_never_ends(
    tmp_path: Path,
    asked: Callable[[], list[str]],
    do: str,
    from_outside: bool,
    tries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.base.worker.BUSY", 0.1)  # on a machine that has much else to do
    (tmp_path / "program.py").write_text(PROGRAM)
    worker = Worker((str(tmp_path / "program.py"),), {"word": "x"}, timeout_s=1, memory_bytes=1 << 30)
    with contextlib.closing(worker), pytest.raises(WorkerDied) as died:
        worker.request({"do": do})
    assert died.value.timed_out
    assert died.value.from_outside is from_outside
    assert asked() == tries * [do]


def test_one_that_does_not_start_blames_no_request(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerDied) as died:
        worker.request({"do": "a"})
    assert died.value.from_outside


def test_closing_frees_who_waits_and_starts_nothing(worker: Worker, asked: Callable[[], list[str]]) -> None:
    worker.request({"do": "a"})
    threading.Timer(0.3, worker.close).start()
    with pytest.raises(WorkerDied) as died:
        worker.request({"do": "hang"})
    assert died.value.from_outside
    assert asked() == ["a", "hang"]
    with pytest.raises(WorkerDied):
        worker.request({"do": "a"})
    assert worker.process is not None
    assert worker.process.poll() is not None
