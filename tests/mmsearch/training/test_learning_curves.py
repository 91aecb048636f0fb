"""Learning curves survive crashes and resumes, and their picture can be drawn."""

from __future__ import annotations

import builtins
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch.errors import TrainingError
from mmsearch.training.learning_curves import LearningCurves


def row(epoch: int, recall: float = 10.0) -> dict[str, float]:
    """A row as the loop writes it: 20 steps an epoch."""
    decay = math.exp(-epoch / 4)
    terms = {
        "loss": 4000 * decay + 300,
        "elbo": -3500 * decay - 800,
        "kl": 90 - 40 * decay,
        "contrast": 5 * decay + 0.5,
    }
    shares = {"t2i_r1": 0.5, "t2i_r5": 1.2, "t2i_r10": 1.6, "i2t_r1": 0.7, "i2t_r5": 1.5, "i2t_r10": 1.8}
    recalls = {name: recall * share for name, share in shares.items()}
    return {"epoch": epoch, "step": 20 * (epoch + 1), **terms, **recalls, "mean_recall": recall, "pairs_per_s": 31.5}


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    curves = LearningCurves(tmp_path / "curves.csv")
    assert not (tmp_path / "curves.csv").exists()
    curves.append({"epoch": 0, "step": 20, "loss": 2.5})
    curves.append({"epoch": 1, "step": 40, "loss": 1 / 3})
    assert (tmp_path / "curves.csv").read_text() == "epoch,step,loss\n0,20,2.5\n1,40,0.333333\n"


def test_resume_drops_the_rows_that_run_again(tmp_path: Path) -> None:
    curves = LearningCurves(tmp_path / "curves.csv")
    for epoch in range(5):
        curves.append(row(epoch))
    resumed = LearningCurves(tmp_path / "curves.csv", resume_step=60)
    assert [r["epoch"] for r in resumed.rows] == [0, 1, 2]
    resumed.append(row(3, recall=77))
    again = LearningCurves(tmp_path / "curves.csv", resume_step=10_000)
    assert [r["epoch"] for r in again.rows] == [0, 1, 2, 3]
    assert again.rows[3]["mean_recall"] == 77
    assert again.rows[1] == pytest.approx(row(1), rel=1e-5)


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    LearningCurves(tmp_path / "curves.csv").append(row(0))
    assert LearningCurves(tmp_path / "curves.csv").rows == []
    assert (tmp_path / "curves.csv").read_text() == ""


@pytest.mark.parametrize("lost", [1, 3, 20])
def test_a_line_cut_by_a_crash_is_dropped(tmp_path: Path, lost: int) -> None:
    file = tmp_path / "curves.csv"
    curves = LearningCurves(file)
    for epoch in range(3):
        curves.append(row(epoch))
    file.write_bytes(file.read_bytes()[:-lost])
    resumed = LearningCurves(file, resume_step=10_000)
    assert [r["epoch"] for r in resumed.rows] == [0, 1]
    resumed.append(row(2))
    assert [r["epoch"] for r in LearningCurves(file, resume_step=10_000).rows] == [0, 1, 2]


def test_a_new_column_is_empty_in_older_rows(tmp_path: Path) -> None:
    curves = LearningCurves(tmp_path / "curves.csv")
    curves.append({"epoch": 0, "step": 1, "loss": 2})
    curves.append({"epoch": 1, "step": 2, "loss": 1, "active_units": 7})
    assert (tmp_path / "curves.csv").read_text() == "epoch,step,loss,active_units\n0,1,2,\n1,2,1,7\n"
    assert "active_units" not in LearningCurves(tmp_path / "curves.csv", resume_step=9).rows[0]


@pytest.mark.parametrize("text", ["image,caption\na.jpg,cat\n", "epoch,step\n0,1\nx,2\n3,4\n"])
def test_another_file_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    file = tmp_path / "curves.csv"
    file.write_text(text)
    with pytest.raises(TrainingError, match="move"):
        LearningCurves(file, resume_step=100)
    assert file.read_text() == text


def test_picture_has_ink_in_both_panels(tmp_path: Path) -> None:
    curves = LearningCurves(tmp_path / "curves.csv")
    for epoch in range(12):
        curves.append(row(epoch, recall=50 - 40 * math.exp(-epoch / 3)))
    curves.plot(tmp_path / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)
    coloured = picture.max(axis=2) - picture.min(axis=2) > 60  # [h, w]: lines, not axes or text
    half = picture.shape[1] // 2
    assert coloured[:, :half].sum() > 500
    assert coloured[:, half:].sum() > 500


@pytest.mark.parametrize("rows", [[], [{"epoch": 0, "step": 5, "loss": 1.0}]])
def test_few_rows_and_few_columns_are_drawn_or_left(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    curves = LearningCurves(tmp_path / "curves.csv")
    for values in rows:
        curves.append(values)
    curves.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists() == bool(rows)


def test_without_matplotlib_training_still_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real_import = builtins.__import__

    def no_matplotlib(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *rest, **named)

    curves = LearningCurves(tmp_path / "curves.csv")
    curves.append(row(0))
    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    curves.plot(tmp_path / "curves.png")
    assert "matplotlib is missing" in caplog.text
    assert not (tmp_path / "curves.png").exists()
