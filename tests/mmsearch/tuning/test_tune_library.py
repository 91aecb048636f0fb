"""`tune` from the outside: what it says and leaves, and that a library is never without vectors to answer from."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmsearch import Library
from mmsearch.cli import app as cli
from mmsearch.errors import LibraryError, ModelMismatch
from mmsearch.tuning import tune as as_seen
from mmsearch.tuning.tune import TuneReport
from tests.fakes import FakeEncoder, paint

GAINED = TuneReport(60, 90, 20, 40.0, 43.0, 1.0, 0.25, accepted=True)
LOST = TuneReport(60, 90, 20, 40.0, 38.5, 1.0, 0.25, accepted=False)


class Crash(BaseException):
    """Stands for a process that ends at once."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of nine red and blue photos by the model `default`; any other model is another encoder."""
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MMSEARCH_DEBUG", raising=False)
    monkeypatch.setattr("mmsearch.model_choice.load_encoder", load)
    for number in range(9):
        paint(tmp_path / "photos" / f"{number}.png", "red" if number % 3 else "blue", seed=number)
    (tmp_path / "photos" / "captions.csv").write_text("image,caption\n0.png,my blue house\n")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text("batch_size = 2\n")
    with Library.open() as library:
        library.index(tmp_path / "photos")
    return tmp_path


def load(name: str, device: str) -> FakeEncoder:
    return FakeEncoder(name=name, seed=0 if name == "default" else 1)


def stand_in(monkeypatch: pytest.MonkeyPatch, report: TuneReport, target: Path) -> list[dict[str, Any]]:
    """What `tune_library` would find, in its place; and what it was asked."""
    asked: list[dict[str, Any]] = []

    def tune_library(store: object, folder: object, *, dry_run: bool, device: str) -> TuneReport:
        asked.append({"folder": folder, "dry_run": dry_run})
        return replace(report, model=target if report.accepted and not dry_run else None)

    monkeypatch.setattr(as_seen, "tune_library", tune_library)
    return asked


def model_of(library: Path | None = None) -> str | None:
    with Library.open(library) as opened:
        return opened.status().model_name


def test_a_gain_is_shown_and_taken_over(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = stand_in(monkeypatch, GAINED, home / "mine")
    assert cli.main(["tune", "mine", "--json"]) == 0
    assert asked == [{"folder": Path("mine"), "dry_run": False}]
    shown = json.loads(capfd.readouterr().out)
    assert (shown["recall_before"], shown["recall_after"], shown["noise"]) == (40, 43, 1)
    assert (shown["photos"], shown["captions"], shown["held_out"]) == (60, 90, 20)
    assert (shown["model"], shown["encoded"]) == (str(home / "mine"), 10)
    assert model_of() == str(home / "mine")
    assert cli.main(["search", "red", "--paths"]) == 0
    capfd.readouterr()
    assert cli.main(["tune", "mine", "--json"]) == 0  # the same again finds the library encoded
    assert json.loads(capfd.readouterr().out)["encoded"] == 0


def test_no_gain_changes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, LOST, home / "mine")
    assert cli.main(["tune"]) == 1
    out, err = capfd.readouterr()
    assert "40.0" in out
    assert err == (
        "mmsearch: mean recall on 20 held-out photos would go from 40.0 to 38.5, noise 1.0: no gain; "
        "nothing was changed\n"
    )
    assert model_of() == "default"


@pytest.mark.parametrize("option", ["--dry-run", "--no-rebuild"])
def test_the_library_stays_as_it_is_when_asked(
    option: str, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, GAINED, home / "mine")
    assert cli.main(["tune", option, "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["encoded"] == 0
    assert shown["model"] == (None if option == "--dry-run" else str(home / "mine"))
    assert model_of() == "default"


def test_a_run_cut_off_leaves_the_old_answers_and_goes_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, GAINED, home / "mine")
    with Library.open() as library:
        before = [(hit.path, hit.score) for hit in library.search("my blue house", k=9)]
    real, batches = FakeEncoder.encode_images, [0]

    def encode_images(self: FakeEncoder, batch: Any) -> Any:
        batches[0] += 1
        if batches[0] == 3:
            raise Crash
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(FakeEncoder, "encode_images", encode_images)
        library = Library.open()  # never closed: the process is gone
        with pytest.raises(Crash):
            library.tune()
    assert model_of() == "default"
    with Library.open() as library:
        assert [(hit.path, hit.score) for hit in library.search("my blue house", k=9)] == before
    with Library.open() as library:
        report = library.tune()
        assert report.encoded == 10 - 4  # two batches of two were committed
        after = [(hit.path, hit.score) for hit in library.search("my blue house", k=9)]
    assert model_of() == str(home / "mine")
    with Library.open(home / "fresh", model=home / "mine") as fresh:
        fresh.index(home / "photos")
        assert after == [(hit.path, hit.score) for hit in fresh.search("my blue house", k=9)]
    with Library.open() as library:
        assert library.tune().encoded == 0


def test_too_few_captions_are_one_line(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("mmsearch: 1 different photos with captions can be read here, 50 are needed; write photo.txt")
    assert err.count("\n") == 1


def test_without_torch_it_says_what_to_install(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("mmsearch.tuning.tune")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "mmsearch.models.checkpoint", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["tune", "--device", "cpu"]) == 2
    assert capfd.readouterr().err == "mmsearch: this needs torch; run \"pip install 'mmsearch[train]'\"\n"


def test_a_library_without_a_folder_or_with_another_model_is_not_tuned(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(as_seen, "check_enough", lambda photos: None)
    with Library.open() as library, pytest.raises(ModelMismatch, match="run 'mmsearch rebuild --model default' first"):
        library.tune(dry_run=True)  # the fake encoder wrote it under the shipped model's name
    (home / "photos").rename(home / "gone")
    with Library.open() as library, pytest.raises(LibraryError, match="is not there; connect it, then run"):
        library.tune(dry_run=True)
