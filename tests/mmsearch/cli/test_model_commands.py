"""What the command line hands to the parts behind it: each is replaced by a stand-in that writes down what it got."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmsearch.cli import app as cli
from tests.mmsearch.cli.conftest import REPORT


def test_train_passes_everything_on_and_prints_the_checkpoint(
    asked: list[tuple[Any, ...]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "heads.toml", "--data", "a", "--data", "b", "--out", "runs", "--resume"]) == 0
    options = {"resume": True, "data": [Path("a"), Path("b")], "model": None, "out": Path("runs")}
    assert asked == [(Path("heads.toml"), {**options, "variant": None, "seed": None})]
    assert capfd.readouterr().out == "runs/best\n"
    cli.main(["train", "heads.toml", "--model", "clip-ViT-B-32", "--variant", "mvae", "--seed", "2"])
    assert asked[1] == (
        Path("heads.toml"),
        {"resume": False, "data": None, "model": "clip-ViT-B-32", "out": None, "variant": "mvae", "seed": 2},
    )


def test_training_says_where_it_is(asked: list[tuple[Any, ...]], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "talks.toml"]) == 0
    assert capfd.readouterr() == ("runs/best\n", "mmsearch: epoch 1\n")


@pytest.mark.parametrize(
    ("recipe", "code", "line"),
    [
        ("diverges.toml", 2, "mmsearch: the loss is nan at step 3; lower the learning rate\n"),
        ("bare.toml", 2, "mmsearch: this needs torch; run \"pip install 'mmsearch[train]'\"\n"),
        (
            "long.toml",
            130,
            "mmsearch: interrupted; the last checkpoint is kept; run the same command with --resume to go on\n",
        ),
    ],
)
def test_training_that_stops_says_so_in_one_line(
    asked: list[tuple[Any, ...]], capfd: pytest.CaptureFixture[str], recipe: str, code: int, line: str
) -> None:
    assert cli.main(["train", recipe]) == code
    assert capfd.readouterr() == ("", line)


def test_eval_prints_a_table_or_json(asked: list[tuple[Any, ...]], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", "photos", "--split", "test", "--model", "mine", "--device", "cpu", "--json"]) == 0
    assert asked == [(Path("photos"), {"split": "test", "model": "mine", "device": "cpu"})]
    answer = json.loads(capfd.readouterr().out)
    assert answer["text_to_image"] == {"r1": 21.5, "r5": 48.0, "r10": 63.25, "median_rank": 6}
    assert answer == json.loads(json.dumps(REPORT.to_dict()))
    assert cli.main(["eval", "photos"]) == 0
    assert asked[1] == (Path("photos"), {"split": "val", "model": "default", "device": "auto"})
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert lines[:3] == [
        ["R@1", "R@5", "R@10", "median", "rank"],
        ["text", "to", "image", "21.5", "48.0", "63.25", "6"],
        ["image", "to", "text", "27.5", "57.0", "69.0", "4"],
    ]
    assert ["image", "31.5", "1.2", "0.1", "250", "256"] in lines
    assert ["image", "-900.5", "-"] in lines
    assert ["images", "1000"] in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--phrasing", "--zero-shot"], "give one of --phrasing, --zero-shot, --fusion, --uncertainty, not two"),
        (["--fusion", "--uncertainty"], "give one of --phrasing, --zero-shot, --fusion, --uncertainty, not two"),
        (["--only", "names.txt"], "--only goes with --zero-shot"),
        (["--phrasing", "--only", "names.txt"], "--only goes with --zero-shot"),
    ],
)
def test_eval_options_that_exclude_each_other(
    options: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", "photos", *options]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_download_fetches_tries_out_and_prints_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[object] = []

    def fetch(name: str) -> Path:
        calls.append(name)
        return tmp_path

    monkeypatch.setattr("mmsearch.inference.hub.download", fetch)
    monkeypatch.setattr("mmsearch.inference.load_model.load_model", lambda *given: calls.append(given))
    assert cli.main(["download", "clip"]) == 0
    assert calls == ["clip", ("clip", "cpu")]
    assert capfd.readouterr().out == f"{tmp_path}\n"
