"""Searches narrowed to a folder and to days: as many hits as asked for, and only what lies there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import pytest
from PIL import Image

from indexer.search.filters import NO_FILTERS, Filters, allowed_ids
from mmsearch import Hit, Library
from mmsearch.cli import app as cli
from mmsearch.errors import LibraryError, QueryError
from mmsearch.query.days import filters_of
from tests.e2e.runner import load_fake
from tests.fakes import COLOURS, paint
from tests.indexer.asking import Store

EXIF, TAKEN = 0x8769, 0x9003
DAYS = "2018:12:31 23:59:59", "2019:01:01 00:00:00", "2019:05:31 18:00:00", "2019:06:01 08:00:00", "2020:02:29 12:00:00"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photos in `photos/a` and in `photos/ab`, all but the last of each with a date, and a note without."""
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mmsearch.model_choice.load_encoder", load_fake)
    colours = list(COLOURS)
    for folder, shift in (("a", 0), ("ab", 50)):
        for number in range(6):
            path = tmp_path / "photos" / folder / f"{number}.jpg"
            paint(path, colours[number % len(colours)], seed=number + shift)
            exif = Image.Exif()
            if number < len(DAYS):
                exif.get_ifd(EXIF)[TAKEN] = DAYS[number]
            with Image.open(path) as picture:
                picture.copy().save(path, exif=exif)
    (tmp_path / "photos" / "a" / "note.txt").write_text("words alone")
    with Library.open() as opened:
        opened.index(tmp_path / "photos")
        return opened.path


def names(hits: Sequence[Hit]) -> set[str]:
    return {f"{hit.path.parent.name}/{hit.path.name}" for hit in hits}


def test_a_folder_is_not_its_neighbour_with_a_longer_name(library: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    with Library.open(library) as opened:
        found = opened.search("red", k=50, folder=photos / "a")
        assert names(found) == {*(f"a/{i}.jpg" for i in range(6)), "a/note.txt"}
        assert len(opened.search("red", k=50, folder=photos)) == 13
        assert len(opened.search("red", k=50, folder=tmp_path)) == 13  # above every root
        assert names(opened.search("red", k=50, folder=photos / "ab" / "3.jpg")) == {"ab/3.jpg"}


@pytest.mark.parametrize(
    ("since", "until", "numbers"),
    [
        (None, None, [0, 1, 2, 3, 4, 5]),
        ("2019", "2019", [1, 2, 3]),
        ("2019-05", "2019-05", [2]),
        ("2019-06-01", None, [3, 4]),
        (None, "2018", [0]),
        (date(2019, 5, 31), datetime(2019, 6, 1, 3), [2, 3]),
        ("2020-02", "2020-02", [4]),
        ("2021", None, []),
        (None, date.max, [0, 1, 2, 3, 4]),
    ],
)
def test_days(library: Path, since: str | date | None, until: str | date | None, numbers: list[int]) -> None:
    with Library.open(library) as opened:
        found = opened.search("red", k=50, within="image", since=since, until=until)
        assert names(found) == {f"{folder}/{i}.jpg" for folder in ("a", "ab") for i in numbers}


def test_the_order_and_the_scores_are_those_of_the_whole_search(library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "ab"
    with Library.open(library) as opened:
        everything = [(hit.path, hit.score) for hit in opened.search("red", k=50) if hit.path.parent == folder]
        two = opened.search("red", k=2, folder=folder)
        assert [(hit.path, hit.score) for hit in two] == everything[:2]
        (many,) = opened.search_many(["red"], k=2, folder=folder)
        assert many == two
        alike = opened.similar(folder / "0.jpg", k=3, folder=folder, since="2019", until="2019")
        assert names(alike) == {"ab/1.jpg", "ab/2.jpg", "ab/3.jpg"}


def test_the_command_line(library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "photos" / "a")
    assert cli.main(["search", "red", "--folder", folder, "--since", "2019", "--until", "2019", "--json"]) == 0
    assert {Path(hit["path"]).name for hit in json.loads(capfd.readouterr().out)["hits"]} == {"1.jpg", "2.jpg", "3.jpg"}
    assert cli.main(["search", "red", "--since", "2021"]) == 1
    assert "nothing found" in capfd.readouterr().err
    assert cli.main(["search", "red", "--since", "May"]) == 2
    assert "since is 'May'; give a year, a month or a day" in capfd.readouterr().err
    assert cli.main(["similar", f"{folder}/0.jpg", "--folder", str(tmp_path / "nowhere")]) == 2
    assert "is in the library; 'mmsearch status' lists the folders" in capfd.readouterr().err


def test_days_in_the_wrong_order_and_a_folder_nobody_indexed(library: Path, tmp_path: Path) -> None:
    assert filters_of(None, "2019-5", "2019-5") == Filters(None, date(2019, 5, 1), date(2019, 5, 31))
    with pytest.raises(QueryError, match="no day from 2020-01-01 to 2019-12-31"):
        filters_of(None, "2020", "2019")
    with Library.open(library) as opened, pytest.raises(LibraryError, match=r"nothing of .* is in the library"):
        opened.search("red", folder=tmp_path / "home")


def test_without_filters_nothing_is_looked_up(library: Path) -> None:
    with Store.open(library) as store, store._catalog.begin() as connection:
        model = store.model()
        assert model is not None
        assert allowed_ids(connection, model, NO_FILTERS) is None
        assert allowed_ids(connection, model, Filters()) is None
        some = allowed_ids(connection, model, Filters(since=date(2019, 5, 31), until=date(2019, 5, 31)))
        assert some is not None
        assert len(some) == 2
