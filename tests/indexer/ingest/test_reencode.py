"""Another model for a library, cut off anywhere: old answers before the switch, new ones after, no mixture."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from indexer.base.errors import LibraryError
from indexer.catalog.schema import models, vectors
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.crashing import BATCH
from tests.indexer.folders import fill
from tests.indexer.snapshots import answers, contents
from tests.indexer.test_crash import Crash, crash_at, encoded

NEW_SEED, NEW_DIM = 5, 24
STEP = 8  # files a transaction


def new_model(**more: object) -> FakeEncoder:
    return FakeEncoder(name="new", seed=NEW_SEED, dim=NEW_DIM, **more)  # type: ignore[arg-type]


def change(library: Path, encoder: FakeEncoder) -> None:
    with Store.open(library) as store:
        store.name(library.parent / "photos")  # it may be a copy, and that is another library
        store.rebuild(encoder, batch_size=STEP)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    fill(tmp_path / "photos")
    with Store.open(tmp_path / "old", create=True) as store:
        store.ingest(tmp_path / "photos", FakeEncoder(), batch_size=BATCH)
    return tmp_path / "old"


@pytest.fixture
def expected(tmp_path: Path, old: Path) -> list[list[tuple[object, ...]]]:
    """What a library holds that never knew another model."""
    with Store.open(tmp_path / "expected", create=True) as store:
        store.ingest(tmp_path / "photos", new_model(), batch_size=BATCH)
    return contents(tmp_path / "expected")


def test_a_changed_library_equals_a_new_one(old: Path, expected: list[list[tuple[object, ...]]]) -> None:
    change(old, new_model())
    assert contents(old) == expected
    with Store.open(old) as store, store._catalog.begin() as connection:
        assert connection.scalars(select(vectors.c.model_id).distinct()).all() == [2]


def test_a_crash_before_every_commit(
    tmp_path: Path, old: Path, expected: list[list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(old) as store:
        before = answers(store)
    library = tmp_path / "library"
    shutil.copytree(old, library)
    with crash_at(monkeypatch, 10**9, after=False) as seen:
        change(library, reference := new_model())
    assert seen[0] > 10
    for number in range(1, seen[0] + 1):
        shutil.rmtree(library)
        shutil.copytree(old, library)
        encoder = new_model()
        with crash_at(monkeypatch, number, after=False), pytest.raises(Crash):
            change(library, encoder)
        with Store.open(library) as store:
            switched = store.model().name == "new"
            assert answers(store) == (expected[-1] if switched else before), f"transaction {number}"
        change(library, encoder)
        assert contents(library) == expected, f"transaction {number}"
        assert encoder.encoded <= reference.encoded + STEP, f"transaction {number}"


WORKER = """
import sys
from pathlib import Path
from tests.indexer.asking import Store
from tests.indexer.ingest.test_reencode import new_model
library, log = map(Path, sys.argv[1:])
print("ready", flush=True)
with Store.open(library) as store:
    store.rebuild(new_model(delay_s=0.02, log=log), batch_size=4)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_killed_again_and_again_it_still_arrives_and_a_reader_sees_no_mixture(
    tmp_path: Path, old: Path, expected: list[list[tuple[object, ...]]]
) -> None:
    log, kills = tmp_path / "log", 0
    root = Path(__file__).parents[3]
    with Store.open(old) as reader:
        before = answers(reader)
        for _ in range(30):
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(old), str(log)],
                cwd=root,
                env=dict(os.environ, PYTHONPATH=str(root)),
            )
            count = encoded(log)
            while process.poll() is None and encoded(log) < count + 2 * BATCH:
                time.sleep(0.005)
            if process.poll() is None:
                process.kill()
                kills += 1
            process.wait()
            if process.returncode == 0:
                break
            assert reader.model().name == "fake"
            assert answers(reader) == before
        else:
            pytest.fail("no progress between kills")
        assert kills >= 2
        assert answers(reader) == expected[-1]
    assert contents(old) == expected
    reference = new_model()
    with Store.open(tmp_path / "again", create=True) as store:
        store.ingest(tmp_path / "photos", reference, batch_size=BATCH)
    assert encoded(log) <= reference.encoded + 1 + kills * BATCH  # a copy is encoded as a file of its own


def test_the_library_goes_on_with_the_old_model_meanwhile(
    tmp_path: Path, old: Path, expected: list[list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that was cut off, then a photo that changes, then the change again: the photo has its new vector."""
    photos = tmp_path / "photos"
    with crash_at(monkeypatch, 3, after=True), pytest.raises(Crash):
        change(old, new_model())
    paint(photos / "p00.png", "white", size=(60, 60), seed=3)
    with Store.open(old) as store:
        store.ingest(photos, FakeEncoder())
    change(old, new_model())
    with Store.open(tmp_path / "fresh", create=True) as store:
        store.ingest(photos, new_model())
    assert contents(old) == contents(tmp_path / "fresh") != expected


def test_a_change_that_was_given_up_leaves_nothing(tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    third = FakeEncoder(name="third", seed=8)
    with crash_at(monkeypatch, 3, after=True), pytest.raises(Crash):
        change(old, third)
    change(old, new_model())
    with Store.open(old) as store, store._catalog.begin() as connection:
        live = connection.scalar(select(models.c.id).where(models.c.name == "new"))
        strange = select(func.count()).select_from(vectors).where(vectors.c.model_id != live)
        assert connection.scalar(strange) == 0


def test_an_offline_folder_stops_it_before_anything_is_encoded(tmp_path: Path, old: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "away")
    encoder = new_model()
    with pytest.raises(LibraryError, match=r"connect it, .*prune --offline"):
        change(old, encoder)
    assert encoder.encoded == 0
