"""A process that answers requests: what it says comes through, and what ends it is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.base.worker import Worker, WorkerDied

PROGRAM = """
import os, time
from indexer.base.worker import serve
def answer(request, options):
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
