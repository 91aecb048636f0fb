"""One visit: a sound library is left as it is, what cannot be mended is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.base.errors import LibraryLocked, MMSearchError
from indexer.base.lock import writer_lock
from indexer.doctor import visit
from tests.fakes import FakeEncoder
from tests.indexer.asking import Store
from tests.indexer.maintenance.conftest import library
from tests.indexer.maintenance.visits import faults, see, sql
from tests.indexer.snapshots import contents

__all__ = ["library"]


def test_a_sound_library_has_no_faults_and_is_left_as_it_is(library: Path) -> None:
    before = contents(library)
    files = sorted(path.name for path in library.rglob("*"))
    encoder = FakeEncoder()
    for repair in (False, True):
        report = see(library, encoder, repair=repair)
        assert report.sound
        assert faults(report) == {}
        assert [check.name for check in report.checks] == [
            "database", "rows", "references", "counters", "folders", "model", "doubles", "files", "visibility",
            "vectors", "index file", "comparison", "keyframes", "leftovers", "sample",
        ]  # fmt: skip
    assert encoder.encoded == 2 * (15 + 8 + 8)  # pictures, text files, rows of captions.csv: the sample was all of them
    assert contents(library) == before
    assert sorted(path.name for path in library.rglob("*")) == files


def test_an_interrupted_rebuild_is_no_fault(library: Path) -> None:
    class Stop(BaseException):
        pass

    def stop(progress: object) -> None:
        if getattr(progress, "done", 0) > 9:
            raise Stop

    with Store.open(library) as store, pytest.raises(Stop):
        store.rebuild(FakeEncoder(seed=1, name="other"), progress=stop, batch_size=4)
    report = see(library, repair=True)
    assert report.sound
    (model,) = (check.found for check in report.checks if check.name == "model")
    assert "8 of 'other'" in model
    encoder = FakeEncoder(seed=1, name="other")
    with Store.open(library) as store:
        store.rebuild(encoder, batch_size=4)
    assert encoder.encoded == 15 + 8 + 5 - 8  # the captions.csv says five different things


def test_a_model_that_cannot_be_loaded_is_a_fault_of_its_own(library: Path) -> None:
    def load(_: Store) -> FakeEncoder:
        raise MMSearchError("weights are damaged; copy the model again")

    report = visit(library, load, repair=True, sample=9)
    assert faults(report) == {"model file": 1}
    assert report.checks[-1].found == "weights are damaged; copy the model again"
    assert visit(library, load, repair=True, sample=0).sound


def test_mending_waits_for_nobody(library: Path) -> None:
    sql(library, "UPDATE library SET change = 3")
    with writer_lock(library), pytest.raises(LibraryLocked):
        see(library, repair=True)
