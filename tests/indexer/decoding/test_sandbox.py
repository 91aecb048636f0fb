"""Decoders that crash, hang, eat memory or speak nonsense end a worker and never a run."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import indexer.decoding.sandbox
from indexer.base.errors import DecodeError, NotPlainFile
from indexer.decoding.decode import decode_image
from indexer.decoding.sandbox import DecodeJournal, Sandbox
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.crashing import killing_workers
from tests.indexer.decoding.samples import XMP, encoded, gradient
from tests.indexer.snapshots import contents

# a worker whose decoder misbehaves as the name of the file asks
ODD = """
import os, signal, sys, time
from indexer.decoding import decode
from indexer.decoding import sandbox_worker as worker
def odd(file, *, side_px):
    name = os.path.basename(file.name)
    if "crash" in name: os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in name: time.sleep(60)
    if "exit" in name: os._exit(7)
    if "kill" in name: os.kill(os.getpid(), signal.SIGKILL)
    if "print" in name: print("hello"); os.write(1, b"hello")
    return decode.decode_image(file, side_px=side_px)
worker.decode_image = odd
worker.main()
"""


@pytest.fixture
def odd_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "odd.py"
    program.write_text(ODD)
    monkeypatch.setattr(indexer.decoding.sandbox, "WORKER", (str(program),))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(32) as one:
        yield one


def test_a_worker_answers_as_this_process_does(tmp_path: Path, sandbox: Sandbox) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    gradient(800, 600).save(tmp_path / "b\udcff ü\n.tiff", tiffinfo={700: XMP})
    for path in tmp_path.iterdir():
        with path.open("rb") as file:
            here = decode_image(file, side_px=32)
        there = sandbox.decode(path)
        assert (there.width_px, there.height_px, there.metadata) == (here.width_px, here.height_px, here.metadata)
        assert len(there.later) == len(here.later)
        for one, other in zip((here.image, *here.later), (there.image, *there.later), strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        assert sandbox.read_metadata(path) == here.metadata
    assert len(sandbox._workers) == 1


def test_reasons_come_through(tmp_path: Path, sandbox: Sandbox) -> None:
    (tmp_path / "a").write_bytes(b"words")
    for path, reason in ((tmp_path / "a", "not a picture"), (tmp_path / "b", "cannot be read")):
        with pytest.raises(DecodeError, match=reason):
            sandbox.decode(path)


@pytest.mark.usefixtures("odd_workers")
@pytest.mark.parametrize(("name", "reason"), [("crash", "SIGSEGV"), ("exit", "exit code 7")])
def test_what_ends_a_worker_is_a_reason(tmp_path: Path, sandbox: Sandbox, name: str, reason: str) -> None:
    good, bad = paint(tmp_path / "good.tiff"), paint(tmp_path / f"{name}.tiff")
    assert sandbox.decode(good).width_px == 48
    with pytest.raises(DecodeError, match=reason):
        sandbox.decode(bad)
    assert sandbox.decode(good).width_px == 48


@pytest.mark.usefixtures("odd_workers")
def test_a_hang_ends_and_prints_do_not_matter(tmp_path: Path) -> None:
    with Sandbox(32, timeout_s=3) as sandbox:
        assert sandbox.decode(paint(tmp_path / "print.tiff")).width_px == 48
        started = time.perf_counter()
        with pytest.raises(DecodeError, match="longer than 3 s"):
            sandbox.decode(paint(tmp_path / "hang.tiff"))
        assert time.perf_counter() - started < 30  # of the 60 that it would sleep
    assert all(worker.process and worker.process.poll() is not None for worker in sandbox._workers)


@pytest.mark.usefixtures("odd_workers")
def test_a_run_goes_on(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    for number, name in enumerate(("a.png", "b_crash.tiff", "c.tiff", "d.jpg")):
        paint(photos / name, "red", seed=number)
    report = store.ingest(photos, encoder)
    assert (report.added, report.skipped) == (3, 1)
    assert [error.reason for error in store.errors()] == ["the decoder crashed on it (SIGSEGV)"]
    assert not (store.path / "decoding").exists()


@pytest.mark.usefixtures("odd_workers")
def test_who_kills_a_worker_loses_no_photo(
    store: Store, encoder: FakeEncoder, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a.tiff", "b_kill.tiff", "c_crash.tiff")):
        paint(photos / name, "red", seed=number)
    for _ in range(2):
        report = store.ingest(photos, encoder)
        assert (report.skipped, report.postponed) == (2, 1)
    assert [error.reason for error in store.errors()] == [
        "the decoder was ended from outside (SIGKILL); the next run tries again",
        "the decoder crashed on it (SIGSEGV)",
    ]
    monkeypatch.undo()  # there is memory again
    report = store.ingest(photos, encoder)
    assert (report.skipped, report.postponed, encoder.images_encoded) == (1, 0, 2)
    assert [error.reason for error in store.errors()] == ["the decoder crashed on it (SIGSEGV)"]


@pytest.mark.usefixtures("odd_workers")
def test_a_photo_that_changed_keeps_its_vector_until_it_can_be_read(
    store: Store, encoder: FakeEncoder, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photos / "kill.tiff"
    with monkeypatch.context() as patch:
        patch.setattr(indexer.decoding.sandbox, "WORKER", ("-m", "indexer.decoding.sandbox_worker"))
        store.ingest(photos, encoder)
        paint(path, "red", seed=1)
        store.ingest(photos, encoder)
        before = path.read_bytes()
    paint(path, "blue", seed=2)
    assert store.ingest(photos, encoder).postponed == 1
    path.write_bytes(before)
    report = store.ingest(photos, encoder)  # known by its content: nothing is decoded
    assert (report.unchanged, report.skipped) == (1, 0)
    assert encoder.images_encoded == 1


def test_workers_killed_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run, undisturbed, arrives where one that was never disturbed did."""
    photos = tmp_path / "photos"
    for number in range(30):
        paint(photos / f"{number}.tiff", "red", seed=number)
    with Store.open(tmp_path / "whole", create=True) as store:
        store.ingest(photos, FakeEncoder())
    with (
        killing_workers(random.Random(5), share=0.5) as killed,
        Store.open(tmp_path / "library", create=True) as store,
    ):
        report = store.ingest(photos, FakeEncoder())
        assert report.skipped == report.postponed
    assert killed
    with Store.open(tmp_path / "library") as store:
        assert store.ingest(photos, FakeEncoder()).skipped == 0
    assert contents(tmp_path / "library") == contents(tmp_path / "whole")


def test_the_memory_of_a_worker_is_limited(tmp_path: Path) -> None:
    gradient(4000, 3000).save(tmp_path / "a.tiff")
    with Sandbox(32, memory_bytes=1 << 30) as sandbox:
        assert sandbox.decode(tmp_path / "a.tiff").width_px == 4000
    with Sandbox(32, memory_bytes=200 << 20) as sandbox, pytest.raises(DecodeError, match=r"MemoryError|crashed"):
        sandbox.decode(tmp_path / "a.tiff")  # the libraries alone take most of it


def test_a_worker_ends_with_the_run(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from indexer.decoding.sandbox import Sandbox\n"
        "box = Sandbox(32); box.decode(Path(sys.argv[1]))\n"
        "print(box._workers[0].process.pid, flush=True); os._exit(1)"
    )
    command = [sys.executable, "-c", code, str(paint(tmp_path / "a.tiff"))]
    pid = int(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if (
            Path(f"/proc/{pid}/stat").is_file()
            and Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
        ):
            return  # ended, and waits for whoever reaps orphans here
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the worker outlived its run")


def test_the_journal_names_what_was_being_decoded(tmp_path: Path) -> None:
    first = DecodeJournal(tmp_path)
    first.open()
    first.about_to_decode(Path("/photos/done.jpg"))
    first.about_to_decode(Path("/photos/b\udcff.jpg"))  # and now the process dies
    second = DecodeJournal(tmp_path)
    second.open()
    assert second.suspects == {"/photos/b\udcff.jpg"}
    second.about_to_decode(Path("/photos/c.jpg"))  # dies again before it has been through the first
    third = DecodeJournal(tmp_path)
    third.open()
    assert third.suspects == {"/photos/b\udcff.jpg", "/photos/c.jpg"}
    third.close()
    fourth = DecodeJournal(tmp_path)
    fourth.open()
    assert fourth.suspects == frozenset()
    fourth.close()
    DecodeJournal(tmp_path / "nowhere").open()  # is done without


@pytest.mark.parametrize("kind", ["link", "hard link", "folder", *["pipe", "device"] * hasattr(os, "mkfifo")])
def test_a_journal_that_leads_elsewhere_is_not_written(tmp_path: Path, kind: str) -> None:
    outside, path = tmp_path / "outside", tmp_path / "decoding"
    outside.write_bytes(b"precious")
    {
        "link": lambda: path.symlink_to(outside),
        "hard link": lambda: path.hardlink_to(outside),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    with pytest.raises(NotPlainFile, match="plain files only"):
        DecodeJournal(tmp_path).open()
    assert outside.read_bytes() == b"precious"


def test_a_journal_of_any_length_costs_little(tmp_path: Path) -> None:
    with (tmp_path / "decoding").open("wb") as file:
        file.write(b"/photos/a.jpg")
        file.truncate(1 << 40)
    journal = DecodeJournal(tmp_path)
    journal.open()
    assert journal.suspects == {"/photos/a.jpg"}
    journal.about_to_decode(tmp_path / "b.jpg")
    assert (tmp_path / "decoding").stat().st_size < 10_000
    journal.close()


@pytest.mark.usefixtures("odd_workers")
def test_no_file_ends_two_runs(tmp_path: Path) -> None:
    photos, library = tmp_path / "photos", tmp_path / "library"
    for number, name in enumerate(("a.png", "b_crash.png", "c.png")):
        paint(photos / name, "red", seed=number)
    code = (
        "import signal, sys; from pathlib import Path; import indexer.ingest.loader as p\n"
        "from indexer.store import Store; from tests.fakes import FakeEncoder\n"
        "real = p.decode_image\n"
        "def decode(file, **rest):\n"
        "    if 'b_crash' in file.name: signal.raise_signal(signal.SIGSEGV)\n"
        "    return real(file, **rest)\n"
        "p.decode_image = decode\n"
        "Store.open(Path(sys.argv[2]), create=True).ingest(Path(sys.argv[1]), FakeEncoder())"
    )
    command = [sys.executable, "-c", code, str(photos), str(library)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGSEGV
    with Store.open(library) as store:
        report = store.ingest(photos, FakeEncoder())
        assert report.skipped == 1
        assert store.status().images == 2
        assert [error.reason for error in store.errors()] == ["the decoder crashed on it (SIGSEGV)"]


def test_large_pictures_cost_less_memory() -> None:
    picture = decode_image(io.BytesIO(encoded(gradient(8000, 5100), "BMP")), side_px=256)
    assert (picture.width_px, picture.height_px) == (8000, 5100)
    assert picture.image.size == (2000, 1275)
