"""Run and kill an index run in a child process; a fork server with all imports loaded starts one in milliseconds.

In: a library, a folder, where to die. Out: the exit code, the states an undisturbed run passes through, and the state a
killed one left. A commit that waits for no batch but for time would depend on the machine, so it does not happen here.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection

from indexer.base import failpoints
from indexer.base.errors import LibraryCorrupt, LibraryNotFound, SchemaOutdated
from indexer.base.worker import Message, Worker
from indexer.catalog import own_roots
from indexer.catalog.database import Catalog
from indexer.ingest import batches
from indexer.search.index_files import open_index
from indexer.search.live_index import from_catalog
from tests.fakes import FakeEncoder
from tests.indexer.asking import Store
from tests.indexer.folders import change, fill
from tests.indexer.snapshots import contents, tables

BATCH = 4
KILLED = -int(getattr(signal, "SIGKILL", signal.SIGTERM))


def ingest(library: Path, photos: Path, encoder: FakeEncoder) -> None:
    with Store.open(library, create=True) as store:
        store.ingest(photos, encoder, batch_size=BATCH)


def reencode(library: Path, _photos: Path, encoder: FakeEncoder) -> None:
    with Store.open(library) as store:
        store.rebuild(encoder, batch_size=BATCH)


Work = Callable[[Path, Path, FakeEncoder], None]


@contextmanager
def armed(text: str) -> Iterator[None]:
    """Arm a point for a block in this process, as the variable does for a whole process."""
    before, failpoints._armed = failpoints._armed, failpoints.parse(text)
    try:
        yield
    finally:
        failpoints._armed = before


def work_in_child(work: Work, library: Path, photos: Path, encoder: FakeEncoder, failpoint: str | None) -> None:
    batches.COMMIT_S = math.inf
    with armed(failpoint) if failpoint else nullcontext():
        work(library, photos, encoder)


def start(
    work: Work, library: Path, photos: Path, encoder: FakeEncoder, failpoint: str | None = None
) -> ForkServerProcess:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__, "alembic.command", "faiss"])
    process = server.Process(target=work_in_child, args=(work, library, photos, encoder, failpoint))
    process.start()
    return process


def exit_code(process: ForkServerProcess) -> int:
    process.join(timeout=240)
    assert process.exitcode is not None
    return process.exitcode


def kill_after(process: ForkServerProcess, seconds: float) -> int:
    time.sleep(seconds)
    process.kill()
    return exit_code(process)


def state(library: Path) -> str | None:
    """A digest of all tables, None where there is none yet; what a reader finds is what the catalog holds."""
    try:
        store = Store.open(library)
    except (LibraryNotFound, SchemaOutdated):
        return None
    with store:
        with store._catalog.begin() as connection:
            digest = _digest(connection)
        model = store._catalog.model()
        if model is not None:
            live, sound = open_index(store._catalog, library / "vectors", model, "cpu")
            with store._catalog.begin() as connection:
                anew = from_catalog(connection, model, "cpu")
            assert sound
            np.testing.assert_array_equal(live.ids, anew.ids)
            np.testing.assert_array_equal(live.kinds, anew.kinds)
            query = np.ones((1, model.dim), np.float32)
            for found, expected in zip(live.index.search(query, 99), anew.index.search(query, 99), strict=True):
                np.testing.assert_array_equal(found, expected)
        return digest


@contextmanager
def killing_workers(dice: random.Random, share: float, within_s: float = 0.01) -> Iterator[list[int]]:
    """Kill worker processes during a `share` of their requests, as a system short of memory does; who was killed."""
    killed: list[int] = []
    real = Worker._ask

    def ask(self: Worker, process: subprocess.Popen[bytes], message: Message) -> tuple[Message, list[bytes]]:
        def kill() -> None:
            process.send_signal(dice.choice((signal.SIGKILL, signal.SIGTERM)))
            killed.append(process.pid)

        timer = threading.Timer(dice.uniform(0, within_s), kill)
        if dice.random() < share:
            timer.start()
        try:
            return real(self, process, message)
        finally:
            timer.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "_ask", ask)
        yield killed


@contextmanager
def recorded_states(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str | None]]:
    """The state after every commit of what runs in this block, and None for the one before there is a library."""
    states: set[str | None] = {None}
    real = Catalog.begin

    @contextmanager
    def begin(self: Catalog) -> Iterator[Connection]:
        with real(self) as connection:
            yield connection
        with suppress(LibraryCorrupt), real(self) as connection:  # before the first migration there are no tables
            states.add(_digest(connection))

    with monkeypatch.context() as patch:
        patch.setattr(batches, "COMMIT_S", math.inf)
        patch.setattr(Catalog, "begin", begin)
        yield states


@dataclass(frozen=True)
class Scene:
    """What a run starts from, the states it passes through undisturbed, and where it ends."""

    work: Work
    photos: Path
    before: Path
    states: frozenset[str | None]
    after: list[list[tuple[object, ...]]]
    encoder: FakeEncoder

    def fresh(self, library: Path) -> FakeEncoder:
        shutil.rmtree(library, ignore_errors=True)
        if self.before.exists():
            shutil.copytree(self.before, library)
            with Store.open(library) as store, store._catalog.begin() as connection:
                own_roots.remember(connection, self.photos)
        return FakeEncoder(seed=self.encoder.seed)

    def arrives(self, library: Path, encoded: int, what: str) -> None:
        """What is left is a state of an undisturbed run; the next run does the rest, and little more than that."""
        assert state(library) in self.states, what
        encoder = FakeEncoder(seed=self.encoder.seed)
        self.work(library, self.photos, encoder)
        assert contents(library) == self.after, what
        assert encoded + encoder.encoded <= self.encoder.encoded + BATCH, what


def all_scenes(folder: Path) -> dict[str, Scene]:
    """A first run, a run over a changed folder, and another model."""
    still, moving = folder / "still", folder / "moving"
    for photos in (still, moving):
        fill(photos)
        ingest(folder / f"{photos.name}-first", photos, FakeEncoder())
    change(moving, captions=True)
    return {
        "nothing": _undisturbed(folder / "nothing", folder / "none", still, ingest, FakeEncoder()),
        "rebuilt": _undisturbed(folder / "rebuilt", folder / "still-first", still, reencode, FakeEncoder(seed=1)),
        "updated": _undisturbed(folder / "updated", folder / "moving-first", moving, ingest, FakeEncoder()),
    }


def _undisturbed(library: Path, before: Path, photos: Path, work: Work, encoder: FakeEncoder) -> Scene:
    scene = Scene(work, photos, before, frozenset(), [], encoder)
    scene.fresh(library)
    with pytest.MonkeyPatch.context() as patch, recorded_states(patch) as states:
        work(library, photos, encoder)
    if before.exists():
        states.add(state(before))
    return Scene(work, photos, before, frozenset(states), contents(library), encoder)


def _digest(connection: Connection) -> str:
    return hashlib.sha256(repr(tables(connection)).encode("utf-8", "surrogateescape")).hexdigest()
