"""Where the time of a run went: every stage counted, nothing counted twice, each thread on the right account."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from indexer.base.profile import Profiler
from indexer.base.types import Posterior, Profile, Stage, UInt8Array
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store

SPIN_S = 0.15


def items(profile: Profile | None) -> dict[str, int]:
    assert profile is not None
    return {stage.name: stage.items for stage in profile.stages}


def spin(seconds: float = SPIN_S) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_the_items_of_every_stage(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    for number in range(5):
        paint(photos / f"p{number}.png", "red", seed=number)
    (photos / "p0.txt").write_text("a caption")
    (photos / "captions.csv").write_text("image,caption\np1.png,a row\n")
    (photos / "broken.jpg").write_bytes(b"x")
    report = store.ingest(photos, encoder, batch_size=2)
    expected = {"scan": 8, "decode": 7, "encode": 6, "store": 7, "captions": 3, "index_file": 7}
    assert items(report.profile) == expected
    assert report.profile is not None
    assert report.profile.seconds == report.seconds
    assert 0 < report.profile.waited_s < report.seconds
    again = store.ingest(photos, encoder)
    assert items(again.profile) == {**dict.fromkeys(expected, 0), "scan": 8}


def test_nothing_is_counted_twice() -> None:
    """On any number of cores: what stages and the rest used is what the process used meanwhile."""
    before = time.process_time()
    clock = Profiler()
    with clock.stage("scan") as scanned:
        spin()
        scanned.items += 3
    helper = threading.Thread(target=lambda: (spin(), clock.helped("decode", 1.0)))
    helper.start()
    helper.join()
    spin(SPIN_S / 3)
    profile = clock.profile()
    used_s = time.process_time() - before
    cpu_s = {stage.name: stage.cpu_s for stage in profile.stages}
    assert cpu_s["scan"] == pytest.approx(SPIN_S, rel=0.5)
    assert cpu_s["decode"] == pytest.approx(SPIN_S, rel=0.5)
    assert cpu_s["encode"] < SPIN_S / 3
    assert profile.rest_cpu_s == pytest.approx(SPIN_S / 3, rel=0.8)
    assert sum(cpu_s.values()) + profile.rest_cpu_s == pytest.approx(used_s, rel=0.1)
    assert items(profile)["scan"] == 3
    assert items(profile)["decode"] == 1


class ThreadedEncoder(FakeEncoder):
    """Computes in a thread of its own, as ONNX Runtime does."""

    def encode_images(self, batch: UInt8Array) -> Posterior:
        thread = threading.Thread(target=spin)
        thread.start()
        thread.join()
        return super().encode_images(batch)


def test_what_the_encoders_threads_use_is_encoding(store: Store, photos: Path) -> None:
    paint(photos / "a.png")
    profile = store.ingest(photos, ThreadedEncoder()).profile
    assert profile is not None
    cpu_s = {stage.name: stage.cpu_s for stage in profile.stages}
    assert cpu_s["encode"] >= SPIN_S
    assert cpu_s["decode"] < SPIN_S


def test_shares_and_rates() -> None:
    profile = Profile(10.0, 4, 1.0, 2.0, (Stage("decode", 100, 20.0, 8.0), Stage("encode", 0, 0.0, 20.0)))
    assert profile.busy(8.0) == pytest.approx(0.2)
    assert profile.idle == pytest.approx(0.25)
    assert [stage.per_second for stage in profile.stages] == [5.0, 0.0]
    said = profile.to_dict()
    assert said["stages"] == {
        "decode": {"items": 100, "seconds": 20.0, "items_per_second": 5.0, "busy": 0.2},
        "encode": {"items": 0, "seconds": 0.0, "items_per_second": 0.0, "busy": 0.5},
    }
    assert Profile(0.0, 4, 0.0, 0.0, ()).busy(1.0) == 0.0
