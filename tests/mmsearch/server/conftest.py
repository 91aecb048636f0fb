"""A folder for sockets, a library that is none, and a server over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch.server import connections
from tests.e2e.server_thread import runtime
from tests.mmsearch.server.stand import Stand, running

__all__ = ["runtime"]


@pytest.fixture
def library(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    monkeypatch.setattr(connections, "TICK_S", 0.05)
    (tmp_path / "catalog.sqlite").touch()
    return Stand(tmp_path)


@pytest.fixture
def served(library: Stand) -> Iterator[Stand]:
    with running(library):
        library.calls.clear()
        library.begun.clear()
        yield library
