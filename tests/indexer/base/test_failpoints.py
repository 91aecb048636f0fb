"""Killed, or out of disk, at every named point: what is left is a state between commits, and the next run arrives."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from indexer.base import failpoints
from indexer.base.errors import LibraryError
from indexer.base.failpoints import INGEST, MIGRATE, POINTS, REENCODE, REPAIR, SALVAGE, SAVE, reach
from indexer.search.search import CATALOG_FILE
from tests.fakes import FakeEncoder
from tests.indexer.asking import Store
from tests.indexer.crashing import KILLED, Scene, all_scenes, armed, exit_code, ingest, recorded_states, start, state
from tests.indexer.folders import fill
from tests.indexer.snapshots import contents

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    return all_scenes(tmp_path_factory.mktemp("scenes"))


PAGE_BYTES = 4096
SCENE_OF = {**dict.fromkeys((*INGEST, *SAVE), "updated"), **dict.fromkeys(MIGRATE, "nothing")}
SCENE_OF |= dict.fromkeys(REENCODE, "rebuilt")
# inside a transaction, or between the steps of a file that is being written
WRITING = ("ing", ".upgraded", ".written", ".synced", ".renamed", ".named")
WRITES = tuple(name for name in SCENE_OF if name.endswith(WRITING))


def test_every_point_has_a_scene() -> None:
    assert {*SCENE_OF, *REPAIR, *SALVAGE} == set(POINTS)  # the last two: test_repair.py, test_salvage.py
    assert len(set(POINTS)) == len(POINTS)


@pytest.mark.parametrize("name", SCENE_OF)
def test_killed_at_a_named_point(scenes: dict[str, Scene], tmp_path: Path, name: str) -> None:
    scene, library, log = scenes[SCENE_OF[name]], tmp_path / "library", tmp_path / "log"
    encoder = scene.fresh(library)
    encoder.log = log
    assert exit_code(start(scene.work, library, scene.photos, encoder, name)) == KILLED
    encoded = sum(int(line.split()[1]) for line in log.read_text().splitlines()) if log.exists() else 0
    scene.arrives(library, encoded, name)


def test_killed_in_the_middle_of_the_batches(scenes: dict[str, Scene], tmp_path: Path) -> None:
    scene = scenes["nothing"]
    for name in ("batch.writing:3", "batch.committed:2", "captions.writing:2"):
        scene.fresh(tmp_path / "library")
        code = exit_code(start(scene.work, tmp_path / "library", scene.photos, FakeEncoder(), name))
        assert code == KILLED
        scene.arrives(tmp_path / "library", 0, name)


@pytest.mark.parametrize("name", WRITES)
def test_the_disk_is_full_at_a_point_that_writes(scenes: dict[str, Scene], tmp_path: Path, name: str) -> None:
    scene, library = scenes[SCENE_OF[name]], tmp_path / "library"
    encoder = scene.fresh(library)
    with armed(f"{name}=enospc"), pytest.raises(LibraryError, match="No space left on device") as caught:
        scene.work(library, scene.photos, encoder)
    assert "\n" not in str(caught.value)
    scene.arrives(library, 0, name)


def test_sqlite_runs_out_of_room(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real error, at several writes: the database may not grow beyond so many pages."""
    fill(photos)
    whole, library = tmp_path / "whole", tmp_path / "library"
    Store.open(whole, create=True).close()
    empty = (whole / CATALOG_FILE).stat().st_size // PAGE_BYTES
    with recorded_states(monkeypatch) as states:
        ingest(whole, photos, FakeEncoder(dim=1024))
    full = (whole / CATALOG_FILE).stat().st_size // PAGE_BYTES
    expected = contents(whole)
    step = (full - empty) // 4
    assert step > 4
    for pages in range(empty, full - step, step):
        with no_more_pages_than(pages), pytest.raises(LibraryError, match="disk is full") as caught:
            ingest(library, photos, FakeEncoder(dim=1024))
        assert "\n" not in str(caught.value)
        assert state(library) in states
        ingest(library, photos, FakeEncoder(dim=1024))
        assert contents(library) == expected
        shutil.rmtree(library)


@contextmanager
def no_more_pages_than(count: int) -> Iterator[None]:
    def limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {count}")

    event.listen(Engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limit)


def test_the_variable_arms_a_process_of_its_own(tmp_path: Path) -> None:
    code = "from indexer.base.failpoints import reach\nreach('batch.writing')\nprint('still here')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), failpoints.VARIABLE: "batch.writing"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""


def test_a_point_does_nothing_until_its_turn() -> None:
    reach("batch.writing")
    with armed("batch.writing:2=enospc"):
        reach("batch.writing")
        reach("batch.committed")
        with pytest.raises(OSError, match="No space left"):
            reach("batch.writing")
        reach("batch.writing")
    reach("batch.writing")


@pytest.mark.parametrize("text", ["batch.written", "batch.writing:0", "batch.writing:x", "batch.writing=stop", ":1"])
def test_a_slip_of_the_pen_is_refused(text: str) -> None:
    with pytest.raises(ValueError), armed(text):
        pass
