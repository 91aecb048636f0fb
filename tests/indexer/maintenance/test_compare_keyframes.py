"""The keyframes of videos before the doctor, animations too; one worker for all that the guard decodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.base import worker
from tests.fakes import FakeEncoder, paint
from tests.indexer.crashing import ingest
from tests.indexer.decoding.test_video import film
from tests.indexer.ingest.samples import animation
from tests.indexer.maintenance.visits import faults, see, sql
from tests.indexer.snapshots import contents


@pytest.fixture
def library(tmp_path: Path, photos: Path) -> Path:
    (photos / "long.mp4").write_bytes(film("red", "green", "blue"))
    (photos / "short.mp4").write_bytes(film("purple", seconds_each=2))
    animation(photos / "moving.webp", "red", "green", "blue")
    for number, name in enumerate(("a.tiff", "b.tiff", "c.tiff", "d.png")):
        paint(photos / name, "grey", seed=number)
    ingest(tmp_path / "library", photos, FakeEncoder())
    return tmp_path / "library"


FIRST = "(SELECT min(id) FROM frames)"
DAMAGE = {
    "another number": f"UPDATE frames SET mu = CAST(x'0050' || substr(mu, 3) AS BLOB) WHERE id = {FIRST}",
    "no number": f"UPDATE frames SET mu = CAST(x'007e' || substr(mu, 3) AS BLOB) WHERE id = {FIRST}",
    "cut off": f"UPDATE frames SET mu = substr(mu, 1, 7) WHERE id = {FIRST}",
    "one is gone": f"DELETE FROM frames WHERE id = {FIRST}",
    "of the only one": "UPDATE frames SET mu = zeroblob(32) WHERE id = (SELECT max(id) FROM frames)",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_keyframe_is_found_and_mended(library: Path, how: str) -> None:
    expected = contents(library)
    sql(library, DAMAGE[how])
    assert faults(see(library, sample=0)) == {"keyframes": 1}
    encoder = FakeEncoder()
    report = see(library, encoder, repair=True, sample=0)
    assert report.sound, faults(report)
    assert encoder.images_encoded == (1 if how == "of the only one" else 7)  # the frames of that video alone
    assert contents(library) == expected


def test_keyframes_that_are_all_gone_show_in_the_sample(library: Path) -> None:
    expected = contents(library)
    sql(library, "DELETE FROM frames")
    assert faults(see(library, sample=0)) == {}
    assert faults(see(library)) == {"sample": 2}
    assert see(library, repair=True).sound
    assert contents(library) == expected


def test_an_animation_that_is_not_what_its_frames_say(library: Path) -> None:
    expected = contents(library)
    sql(
        library,
        "UPDATE vectors SET mu = CAST(x'0050' || substr(mu, 3) AS BLOB) "
        "WHERE asset_id = (SELECT id FROM assets WHERE rel_path = CAST('moving.webp' AS BLOB))",
    )
    assert faults(see(library, sample=0)) == {"comparison": 1}
    (library / "vectors" / "index-1.f16").unlink()
    assert faults(see(library)) == {"index file": 1, "sample": 1}
    assert see(library, repair=True).sound
    assert contents(library) == expected


def test_a_video_that_is_away_keeps_what_it_has(library: Path, photos: Path) -> None:
    expected = contents(library)
    sql(library, DAMAGE["another number"])
    away = photos.rename(photos.with_name("away"))
    assert faults(see(library, repair=True)) == {"keyframes": 1}
    away.rename(photos)
    assert see(library, repair=True).sound
    assert contents(library) == expected


def test_one_worker_decodes_the_whole_sample(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Counted(worker.subprocess.Popen):  # type: ignore[type-arg, name-defined]
        def __init__(self, *arguments: object, **options: object) -> None:
            started.append(arguments)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(worker.subprocess, "Popen", Counted)
    assert see(library).sound
    assert len(started) == 1  # three TIFFs and two videos
