"""Run a server in a thread of the test process, on a socket of its own.

In: a library's folder. Out: questions to its socket are answered until the test ends.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch import Library
from tests.fakes import FakeEncoder


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    base = Path("/tmp") / f"mm-{os.getpid()}-{time.monotonic_ns() % 10**9}"  # short: paths of sockets must be
    base.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    yield base
    shutil.rmtree(base, ignore_errors=True)


class Served:
    """A server in a thread of this process."""

    def __init__(self, path: Path, idle_s: float = 30.0) -> None:
        self.encoder = FakeEncoder(name="default")
        self.failure: list[Exception] = []
        heard = threading.Event()

        def run() -> None:
            try:
                with Library.open(path) as opened:
                    opened.serve(idle_s, lambda _: heard.set())
            except Exception as error:
                self.failure.append(error)
            heard.set()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        assert heard.wait(20)
