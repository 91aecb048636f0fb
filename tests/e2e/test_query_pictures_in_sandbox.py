"""Pictures as queries: formats whose decoder may crash are decoded in a worker, the others start none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mmsearch import Library
from mmsearch.server import client
from tests.e2e.conftest import Run
from tests.e2e.processes import imported_by
from tests.e2e.server_thread import Served
from tests.fakes import COLOURS, paint
from tests.indexer.decoding.samples import heif
from tests.indexer.decoding.test_sandbox import odd_workers
from tests.indexer.decoding.test_video import film

__all__ = ["odd_workers"]
GUARDED = {"indexer.decoding.sandbox", "multiprocessing"}


def tiff(path: Path) -> None:
    paint(path, "red")


def avif(path: Path) -> None:
    paint(path, "red")


def heic(path: Path) -> None:
    path.write_bytes(heif(Image.new("RGB", (48, 40), COLOURS["red"]), quality=95))


def mp4(path: Path) -> None:
    path.write_bytes(film("red", seconds_each=1))


@pytest.mark.parametrize("make", [tiff, avif, heic, mp4], ids=lambda make: make.__name__)
def test_the_answer_is_that_of_the_same_picture_as_png(
    run: Run, photos: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    run("index", photos)
    risky, plain = tmp_path / f"query.{make.__name__}", paint(tmp_path / "query.png", "red")
    make(risky)
    for asked in (("search", "--image"), ("similar",)):
        answer, expected = run(*asked, risky, "--paths"), run(*asked, plain, "--paths")
        assert answer.code == 0, answer.err
        assert answer.out.splitlines()[0] == expected.out.splitlines()[0]


@pytest.mark.usefixtures("odd_workers")
def test_a_decoder_that_is_killed_is_no_fault_of_the_picture(run: Run, photos: Path, tmp_path: Path) -> None:
    run("index", photos)
    answer = run("similar", paint(tmp_path / "kill.tiff"))
    assert answer.code == 2
    said = "the decoder was ended from outside (SIGKILL); ask again"
    assert answer.err == f"mmsearch: {tmp_path / 'kill.tiff'}: {said}\n"


@pytest.mark.usefixtures("odd_workers")
@pytest.mark.parametrize("command", [("search", "--image"), ("similar",)])
def test_a_decoder_that_crashes_is_one_line(run: Run, photos: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    run("index", photos)
    answer = run(*command, paint(tmp_path / "crash.tiff"))
    assert answer.code == 2
    assert answer.err == f"mmsearch: {tmp_path / 'crash.tiff'}: the decoder crashed on it (SIGSEGV)\n"


@pytest.mark.usefixtures("odd_workers", "runtime")
@pytest.mark.skipif(not client.HAS_SOCKETS, reason="no Unix sockets here")
def test_a_server_outlives_it(run: Run, photos: Path, home: Path, tmp_path: Path) -> None:
    run("index", photos)
    Served(home / "library")
    assert client.ask(home / "library", [], image=paint(tmp_path / "crash.tiff")) is None
    assert client.ask(home / "library", [], image=paint(tmp_path / "fine.tiff")) is not None


def test_ordinary_pictures_start_no_process(run: Run, home: Path, photos: Path, tmp_path: Path) -> None:
    run("index", photos)
    plain, risky = (paint(tmp_path / "a.png"), paint(tmp_path / "a.jpg")), (paint(tmp_path / "a.tiff"),)
    for pictures, expected in ((plain, set()), (risky, {"indexer.decoding.sandbox"})):
        code = (
            "from mmsearch import model_choice; from mmsearch.cli import app as cli; "
            "from tests.e2e.runner import load_fake; model_choice.load_encoder = load_fake; "
            f"[cli.main(['search', '--image', one]) for one in {[str(one) for one in pictures]!r}]"
        )
        assert imported_by(home, code, GUARDED) == expected


def test_from_python_too(run: Run, home: Path, photos: Path, tmp_path: Path) -> None:
    run("index", photos)
    with Library.open(home / "library") as library:
        assert library.search(image=paint(tmp_path / "q.tiff"), k=1)[0].path.name == "red.png"
        assert library.search(image=Image.new("RGB", (9, 9), COLOURS["blue"]), k=1)[0].path.name == "blue.png"
