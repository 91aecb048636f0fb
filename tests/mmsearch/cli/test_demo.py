"""`make demo`: the searches it runs, the table it prints and, with the shipped model, how many it gets right."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import mmsearch
from mmsearch.cli import demo
from mmsearch.cli.demo import Answer, DemoReport
from mmsearch.errors import DataError
from tests.fakes import FakeEncoder

MODEL = Path(mmsearch.__file__).parent / "pretrained" / "default" / "model.json"
PACKAGES = all(importlib.util.find_spec(name) for name in ("skimage", "sklearn"))

needs_photos = pytest.mark.skipif(not PACKAGES, reason="scikit-image or scikit-learn, with the photos, is missing")


def test_the_sixteen_searches_and_their_answers() -> None:
    assert list(demo.SEARCHES) == [
        "a cat", "an astronaut", "a cup of coffee", "a rocket launch", "a motorcycle", "a flower", "a temple", "coins",
        "the moon", "stars in the night sky", "a man with a camera", "a page of text", "grass", "a brick wall",
        "a horse", "a clock",
    ]  # fmt: skip
    for query, right in demo.SEARCHES.items():
        assert right, query
        assert set(right) <= set(demo.PHOTOS), query


@needs_photos
def test_every_photo_is_in_the_packages_and_a_second_run_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = len(list((demo.SCENES / "images").iterdir())) if demo.SCENES.is_dir() else 0
    report = demo.run_demo(tmp_path, model=FakeEncoder())
    assert report.missing == ()
    assert {path.name for path in (tmp_path / "photos").iterdir()} == set(demo.PHOTOS)
    assert report.pictures == len(demo.PHOTOS) + scenes >= 20
    for answer in report.answers:
        assert answer.right_rank is not None
        assert answer.right == (answer.right_rank == 1) == (answer.first in demo.SEARCHES[answer.query])
    # without a checkout the photos of the packages are searched alone
    (tmp_path / "photos" / "of-another-version.png").write_bytes(b"")
    monkeypatch.setattr(demo, "SCENES", tmp_path / "not-a-checkout")
    alone = demo.run_demo(tmp_path, model=FakeEncoder())
    assert alone.pictures == len(demo.PHOTOS) >= 20
    assert {answer.first for answer in alone.answers} <= set(demo.PHOTOS)


def test_without_the_packages_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_package_folder", lambda package: None)
    monkeypatch.setattr(demo, "_default_folder", lambda: tmp_path)
    with pytest.raises(DataError):
        demo.run_demo(tmp_path)
    assert demo.main([]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith("run 'pip install scikit-image scikit-learn'\n")


def test_a_folder_that_cannot_be_written_to_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(demo, "_default_folder", lambda: tmp_path / "file" / "demo")
    assert demo.main([]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_the_table_and_the_json(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    answers = (Answer("a cat", "cat.png", 0.51234, True, 1), Answer("coins", "moon.png", -0.01, False, 12))
    report = DemoReport(answers, pictures=58, missing=("horse.png",), index_seconds=2.0, search_seconds=0.1)
    monkeypatch.setattr(demo, "run_demo", lambda **options: report)
    assert demo.main([]) == 0
    out, err = capfd.readouterr()
    assert "horse.png" in err
    assert out.splitlines() == [
        "58 pictures indexed in 2.0 s",
        "",
        "search  first hit          score  first right at",
        "a cat   cat.png    right   0.512               1",
        "coins   moon.png   wrong  -0.010              12",
        "",
        "1 of 2 right",
    ]
    assert demo.main(["--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["right"] == 1
    assert shown["answers"][0] == {
        "query": "a cat", "first": "cat.png", "score": 0.5123, "right": True, "right_rank": 1
    }  # fmt: skip


@needs_photos
@pytest.mark.skipif(not MODEL.exists(), reason="this checkout holds no default model")
def test_the_shipped_model_gets_nine_right(tmp_path: Path) -> None:
    report = demo.run_demo(tmp_path)
    wrong = [(a.query, a.first) for a in report.answers if not a.right]
    assert report.right >= 9, wrong
