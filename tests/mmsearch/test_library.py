"""The library from Python: what is loaded when, what is refused, and which model and place are meant."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.base.types import Progress
from indexer.store import Store
from mmsearch import FolderNotFound, Hit, Library, LibraryNotFound, ModelMismatch, QueryError
from mmsearch.config import Config
from tests.fakes import FakeEncoder, paint

Loaded = list[tuple[str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """Every model that was loaded, as (name, device)."""
    calls: Loaded = []

    def load(name: str, device: str) -> FakeEncoder:
        calls.append((name, device))
        time.sleep(0.01)  # as a model takes time, in which others ask for it
        return FakeEncoder(name=name, seed=len(name))

    monkeypatch.setattr("mmsearch.model_choice.load_encoder", load)
    return calls


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, colour in enumerate(("red", "green", "blue")):
        paint(tmp_path / "photos" / f"{colour}.png", colour, (32, 32), seed=number)
    return tmp_path / "photos"


def test_open_touches_nothing(home: Path, loaded: Loaded) -> None:
    library = Library.open()
    assert library.path == home / "library"
    library.close()
    assert not home.exists()
    assert loaded == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda library: library.search("red"),
        lambda library: library.status(),
        lambda library: library.errors(),
        lambda library: library.rebuild(),
        lambda library: library.similar(__file__),
    ],
)
def test_nothing_indexed_is_said_without_loading_a_model(
    ask: Callable[[Library], object], loaded: Loaded, home: Path
) -> None:
    with pytest.raises(LibraryNotFound, match="mmsearch index"):
        ask(Library.open())
    assert loaded == []
    assert not home.exists()


def test_a_query_is_refused_before_anything_is_opened(loaded: Loaded) -> None:
    library = Library.open()
    for refused in (
        lambda: library.search(),
        lambda: library.search("  "),
        lambda: library.search("red", k=0),
        lambda: library.search(image="absent.png"),
        lambda: library.similar("absent.png"),
        lambda: library.similar(__file__, k=0),
    ):
        with pytest.raises(QueryError):
            refused()
    with pytest.raises(FolderNotFound):
        library.index("absent")
    assert loaded == []


def test_the_model_is_loaded_once_and_by_the_name_in_the_library(photos: Path, loaded: Loaded) -> None:
    with Library.open(model="mine") as library:
        library.index(photos)
        library.search("red")
        library.search("blue")
    assert loaded == [("mine", "auto")]
    with Library.open(device="cpu", config=Config(model="another")) as library:
        assert library.search("red")
    assert loaded == [("mine", "auto"), ("mine", "cpu")]


def test_a_model_given_by_its_folder_is_remembered_from_everywhere(
    photos: Path, tmp_path: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "runs")
    Library.open(model="mine").index(photos)
    monkeypatch.chdir(tmp_path)
    Library.open(model="runs/mine").similar(photos / "red.png")
    Library.open().search("red")
    assert loaded == [(str(tmp_path / "runs" / "mine"), "auto")] * 2  # an indexed file's neighbours need no model


def test_a_new_library_takes_the_configured_model_and_device(photos: Path, loaded: Loaded, home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text('model = "mine"\ndevice = "cpu"\n', encoding="utf-8")
    Library.open().index(photos)
    assert loaded == [("mine", "cpu")]


def test_another_model_is_refused_until_the_library_goes_over_to_it(photos: Path) -> None:
    first, second = FakeEncoder(name="first"), FakeEncoder(name="second", seed=1)
    Library.open(model=first).index(photos)
    other = Library.open(model=second)
    for refused in (
        lambda: other.search("red"),
        lambda: other.similar(photos / "red.png"),
    ):
        with pytest.raises(ModelMismatch, match=r"'first'.*'second'"):
            refused()
    paint(photos / "new.png", "grey", seed=9)
    report = other.index(photos)
    assert (report.added, report.unchanged, report.updated, report.encoded) == (1, 3, 0, 4)
    assert second.encoded == 4
    assert other.search("red", k=1)[0].path == photos / "red.png"
    with pytest.raises(ModelMismatch):
        Library.open(model=first).search("red")


def test_a_picture_may_be_a_path_a_pil_image_or_an_array(photos: Path) -> None:
    library = Library.open(model=FakeEncoder())
    library.index(photos)
    path = photos / "green.png"
    with Image.open(path) as image:
        answers = [library.search(image=picture, k=3) for picture in (path, str(path), image.copy(), np.asarray(image))]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == Hit(path=path, score=answers[0][0].score, rank=1, modality="image")
    assert answers[0][0].score == pytest.approx(1.0, abs=1e-3)  # stored in float16


def test_similar_encodes_again_only_what_changed_since_it_was_indexed(photos: Path) -> None:
    encoder = FakeEncoder()
    library = Library.open(model=encoder)
    library.index(photos)
    library.similar(photos / "red.png")
    assert encoder.encoded == 3
    paint(photos / "red.png", "blue", (40, 40))
    os.utime(photos / "red.png", ns=(1, 1))
    assert library.similar(photos / "red.png")[0].path == photos / "blue.png"
    assert encoder.encoded == 4


def test_progress_is_reported_and_the_last_one_is_complete(photos: Path) -> None:
    seen: list[Progress] = []
    report = Library.open(model=FakeEncoder()).index(photos, seen.append)
    assert seen[-1].done == seen[-1].total == report.added == 3


def test_a_closed_library_opens_itself_again(photos: Path) -> None:
    library = Library.open(model=FakeEncoder())
    library.index(photos)
    library.close()
    library.close()
    assert len(library.search("red", k=2)) == 2


def test_a_library_without_any_vector_answers_without_a_model(photos: Path, home: Path, loaded: Loaded) -> None:
    Store.open(home / "library", create=True).close()  # as after a crash before the first batch
    library = Library.open()
    assert library.search("red") == []
    assert library.similar(photos / "red.png") == []
    assert library.status().images == 0
    assert loaded == []


def test_threads_that_begin_at_once_load_the_model_once(photos: Path, loaded: Loaded) -> None:
    with Library.open(model="mine") as library:
        library.index(photos)
    loaded.clear()
    library, begin = Library.open(model="mine"), threading.Barrier(12)

    def search(_: int) -> list[Hit]:
        begin.wait(20)
        return library.search("red")

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(search, range(12)))
    assert answers == [answers[0]] * 12
    assert loaded == [("mine", "auto")]
    library.close()
