"""A clock that was set back: what changed is still seen, what did not is not encoded again, nothing is overwritten."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from indexer.base import durable
from indexer.catalog import library as library_row
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.crashing import ingest
from tests.indexer.snapshots import contents

YEAR = timedelta(days=365)


class LastYear(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) - YEAR  # type: ignore[arg-type]


def number(library: Path) -> int:
    (path,) = (one for one in (library / "vectors").iterdir() if ".bad-" not in one.name)
    return int(path.stem.removeprefix("index-"))


def set_back(path: Path) -> None:
    then_ns = path.stat().st_mtime_ns - int(YEAR.total_seconds()) * 10**9
    os.utime(path, ns=(then_ns, then_ns))


def test_a_run_after_the_clock_was_set_back(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "library"
    for seed, name in enumerate(("same", "other", "gone")):
        paint(photos / f"{name}.png", "red", seed=seed)
    (photos / "note.txt").write_text("red words")
    ingest(library, photos, FakeEncoder())
    with Store.open(library) as store:
        first = store.status().last_indexed_at
    before = number(library)
    monkeypatch.setattr(library_row, "datetime", LastYear)
    (photos / "note.txt").write_text("new words")  # as long as it was
    set_back(photos / "note.txt")
    paint(photos / "other.png", "blue", seed=9)
    set_back(photos / "other.png")
    (photos / "gone.png").unlink()
    set_back(paint(photos / "new.png", "green", seed=8))
    encoder = FakeEncoder()
    ingest(library, photos, encoder)
    assert (encoder.images_encoded, encoder.texts_encoded) == (2, 1)
    assert number(library) > before
    ingest(library, photos, again := FakeEncoder())
    assert again.encoded == 0
    ingest(tmp_path / "fresh", photos, FakeEncoder())
    assert contents(library)[-1] == contents(tmp_path / "fresh")[-1]
    with Store.open(library) as store:
        last = store.status().last_indexed_at
    assert first is not None
    assert last is not None
    assert last < first - YEAR + timedelta(hours=1)


def test_two_files_set_aside_in_one_second_are_both_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20200101T000000")
    for count in range(3):
        (tmp_path / "index-1.faiss").write_bytes(bytes([count]))
        durable.set_aside(tmp_path / "index-1.faiss")
    kept = sorted(tmp_path.iterdir(), key=lambda path: (len(path.name), path.name))
    assert [path.read_bytes()[0] for path in kept] == [0, 1, 2]
