"""A run that ends in the middle, and the next one: together they do what one undisturbed run does, and little more."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from indexer.catalog.database import Catalog
from tests.fakes import FakeEncoder
from tests.indexer.crashing import BATCH, KILLED, exit_code, ingest, kill_after, recorded_states, start, state
from tests.indexer.folders import change, fill
from tests.indexer.snapshots import contents


class Crash(BaseException):
    """Stands for a process that ends at once."""


@contextmanager
def crash_at(monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> Iterator[list[int]]:
    """End the run in its `number`-th transaction: before its commit, or right after."""
    seen = [0]
    real = Catalog.begin

    @contextmanager
    def begin(self: Catalog) -> Iterator[Connection]:
        with real(self) as connection:
            yield connection
            seen[0] += 1
            if seen[0] == number and not after:
                raise Crash
        if seen[0] == number and after:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "begin", begin)
        yield seen


@pytest.mark.parametrize("after", [False, True], ids=["before-commit", "after-commit"])
def test_a_crash_in_every_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    photos, first, second = tmp_path / "photos", tmp_path / "first", tmp_path / "second"
    fill(photos)
    ingest(first, photos, FakeEncoder())
    untouched = contents(first)
    reference = FakeEncoder()
    shutil.copytree(first, second)
    change(photos, captions=after)  # a captions.csv as it was must not let the next run think that nothing is due
    ingest(second, photos, reference)
    expected = contents(second)
    assert expected != untouched
    with crash_at(monkeypatch, 10**9, after=after) as seen:
        shutil.rmtree(second)
        shutil.copytree(first, second)
        ingest(second, photos, FakeEncoder())
    assert seen[0] > 15
    for number in range(1, seen[0] + 1):
        encoder = FakeEncoder()
        shutil.rmtree(second)
        shutil.copytree(first, second)
        with crash_at(monkeypatch, number, after=after), pytest.raises(Crash):
            ingest(second, photos, encoder)
        ingest(second, photos, encoder)
        assert contents(second) == expected, f"transaction {number}"
        assert encoder.encoded <= reference.encoded + BATCH, f"transaction {number}"


def encoded(log: Path) -> int:
    return sum(int(line.split()[1]) for line in log.read_text().splitlines()) if log.exists() else 0


def test_kill_at_random_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, reference = tmp_path / "photos", tmp_path / "reference"
    fill(photos)
    undisturbed = FakeEncoder()
    with recorded_states(monkeypatch) as states:
        ingest(reference, photos, undisturbed)
    expected = contents(reference)
    dice = random.Random(11)
    for number in range(12):
        library, log = tmp_path / f"library{number}", tmp_path / f"log{number}"
        process = start(ingest, library, photos, FakeEncoder(delay_s=0.01, log=log))
        code = kill_after(process, dice.uniform(0.0, 0.5))  # an undisturbed run takes about half a second
        assert code in (KILLED, 0)
        assert state(library) in states
        before = encoded(log)
        ingest(library, photos, encoder := FakeEncoder())
        assert contents(library) == expected
        assert before + encoder.encoded <= undisturbed.encoded + BATCH


def test_killed_again_and_again_it_still_arrives(tmp_path: Path) -> None:
    photos, library, log = tmp_path / "photos", tmp_path / "library", tmp_path / "log"
    fill(photos)
    reference = FakeEncoder()
    ingest(tmp_path / "reference", photos, reference)
    kills = 0
    for _ in range(30):
        process = start(ingest, library, photos, FakeEncoder(delay_s=0.02, log=log))
        before = encoded(log)
        while process.is_alive() and encoded(log) < before + 2 * BATCH:
            time.sleep(0.005)
        process.kill()
        code = exit_code(process)
        kills += code != 0
        if code == 0:
            break
    else:
        pytest.fail("no progress between kills")
    assert kills >= 2
    assert contents(library) == contents(tmp_path / "reference")
    assert encoded(log) <= reference.encoded + kills * BATCH
