"""What `mmsearch eval` prints, as tables and as JSON: each evaluation is replaced by a stand-in."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mmsearch.cli import app as cli
from mmsearch.evaluation.fusion_eval import Fused, FusionReport, Gain
from mmsearch.evaluation.phrasing import Phrased, PhrasingReport
from mmsearch.evaluation.recall import Recall
from mmsearch.evaluation.signals import Area
from mmsearch.evaluation.uncertainty import Growth, Spread, UncertaintyReport
from mmsearch.evaluation.zero_shot import ZeroShotReport
from tests.mmsearch.cli.conftest import REPORT


def test_eval_prints_recalls_by_cosine_beside_those_of_a_search(
    asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    by_cosine = {"text_to_image": Recall(20.5, 47.0, 62.0, 7), "image_to_text": Recall(26.5, 56.0, 68.0, 5)}
    report = dataclasses.replace(REPORT, cosine=by_cosine)
    monkeypatch.setattr(sys.modules["mmsearch.evaluation.evaluate"], "evaluate", lambda subject: report)
    assert cli.main(["eval", "photos"]) == 0
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert lines[1:6] == [
        "text to image 21.5 48.0 63.25 6",
        "image to text 27.5 57.0 69.0 4",
        "by cosine alone, text to image 20.5 47.0 62.0 7",
        "by cosine alone, image to text 26.5 56.0 68.0 5",
        "",
    ]
    assert not [line for line in lines if line.startswith("cosine")]
    assert cli.main(["eval", "photos", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["cosine"]["text_to_image"]["r1"] == 20.5


def test_eval_of_everyday_wording(
    subject: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Any, ...]] = []
    old, new = Recall(40.0, 60.0, 80.0, 2.0), Recall(20.0, 50.0, 78.0, 5.0)
    none = dict.fromkeys(("text_to_image_r1", "text_to_image_r10", "image_to_text_r1"), 0.0)
    loss = {"text_to_image_r1": 50.0, "text_to_image_r10": 2.5, "image_to_text_r1": -1.5, "image_to_text_r10": None}
    variants = {
        "plain": Phrased("A dog .", 0.0, old, old, {**none, "image_to_text_r10": 0.0}, False),
        "upper_case": Phrased("A DOG .", 99.5, new, old, loss, True),
    }
    report = PhrasingReport("default", "ab" * 32, "photos", "val", 8, 40, 0, variants)

    def evaluate_phrasing(subject: tuple[Any, ...]) -> PhrasingReport:
        calls.append(subject)
        return report

    monkeypatch.setattr("mmsearch.evaluation.phrasing.evaluate_phrasing", evaluate_phrasing)
    assert cli.main(["eval", "photos", "--phrasing", "--model", "mine"]) == 0
    assert calls == [(Path("photos"), {"split": "val", "model": "mine", "device": "auto"})]
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert lines[:3] == [
        "changed to image R@1 loss R@10 loss to text R@1 loss R@10 loss",
        "plain 0.0 40.0 0.0 80.0 0.0 40.0 0.0 80.0 0.0",
        "upper case 99.5 20.0 50.0 78.0 2.5 40.0 -1.5 80.0 - over a fifth lost",
    ]
    assert "upper case A DOG ." in lines
    assert "texts 40" in lines
    assert cli.main(["eval", "photos", "--phrasing", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads(json.dumps(report.to_dict()))


def test_eval_of_names(subject: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[Any, ...]] = []
    report = ZeroShotReport(12.5, 37.5, 100, 1000, ("{}", "a {}"), only="held_out.txt")

    def evaluate_zero_shot(subject: tuple[Any, ...], **options: object) -> ZeroShotReport:
        calls.append((subject[0], {**subject[1], **options}))
        return report

    monkeypatch.setattr("mmsearch.evaluation.zero_shot.evaluate_zero_shot", evaluate_zero_shot)
    assert cli.main(["eval", "photos", "--zero-shot", "--only", "held_out.txt", "--split", "train"]) == 0
    options = {"split": "train", "model": "default", "device": "auto", "only": Path("held_out.txt")}
    assert calls == [(Path("photos"), options)]
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert lines[:5] == ["top1 12.5", "top5 37.5", "images 100", "names 1000", "templates {}, a {}"]
    assert cli.main(["eval", "photos", "--zero-shot", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["top5"] == 37.5
    report = dataclasses.replace(report, cosine_top1=11.5, cosine_top5=36.0)
    assert cli.main(["eval", "photos", "--zero-shot"]) == 0
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert lines[5:7] == ["cosine top1 11.5", "cosine top5 36.0"]


def test_eval_of_fusion(subject: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[Any, ...]] = []
    recall, half = Recall(40.0, 60.0, 80.0, 2.0), Recall(10.0, 20.0, 30.0, 9.0)
    ways = {"as_indexed": Fused(recall, Gain(1.25, -0.5, 3.0), 98.5, recall, half)}
    fusions = {"0": {"photo_alone": Fused(half, None, 100.0, None, None)}, "1": ways}
    report = FusionReport("default", "ab" * 32, "photos", "val", 8, 40, fusions, {"1": True})

    def evaluate_fusion(subject: tuple[Any, ...]) -> FusionReport:
        calls.append(subject)
        return report

    monkeypatch.setattr("mmsearch.evaluation.fusion_eval.evaluate_fusion", evaluate_fusion)
    assert cli.main(["eval", "photos", "--fusion", "--device", "cpu"]) == 0
    assert calls == [(Path("photos"), {"split": "val", "model": "default", "device": "cpu"})]
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert lines[1:3] == [
        "photo alone 0 10.0 20.0 30.0 - - 100.0 - - - -",
        "as indexed 1 40.0 60.0 80.0 1.25 -0.5 to 3.0 98.5 40.0 80.0 10.0 30.0",
    ]
    assert "queries 40" in lines
    assert cli.main(["eval", "photos", "--fusion", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads(json.dumps(report.to_dict()))


def test_eval_of_uncertainty(subject: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[Any, ...]] = []
    spread = Spread(-0.5, 155.25, 290.5)
    grown = Growth({"0": spread, "16": Spread(-0.25, 199.0, 320.0)}, 1.0, 0.9, 99.5, 200)
    errors: dict[str, Area | None] = {"cosine": Area(0.75, 0.7, 0.8), "variance": None}
    areas = (errors, {"to_cosine": Area(0.01, -0.01, 0.03)})
    report = UncertaintyReport(
        "default", "ab" * 32, "photos", "val", 8, 40, grown, grown, {"grey": spread}, 60.5, *areas
    )

    def evaluate_uncertainty(subject: tuple[Any, ...]) -> UncertaintyReport:
        calls.append(subject)
        return report

    monkeypatch.setattr("mmsearch.evaluation.uncertainty.evaluate_uncertainty", evaluate_uncertainty)
    assert cli.main(["eval", "photos", "--uncertainty", "--model", "mine"]) == 0
    assert calls == [(Path("photos"), {"split": "val", "model": "mine", "device": "auto"})]
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert "16 -0.25 199.0 320.0" in lines
    assert "rank correlation 1.0, within an item 0.9, rises in 99.5 % of them" in lines
    assert "grey -0.5 155.25 290.5" in lines
    shown = lines[lines.index("wrong first hits AUROC 95 %") + 1 :]
    assert shown[:3] == ["cosine 0.75 0.7 to 0.8", "variance - -", "variance adds to cosine 0.01 -0.01 to 0.03"]
    assert "wrong 60.5" in lines
    assert cli.main(["eval", "photos", "--uncertainty", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads(json.dumps(report.to_dict()))
