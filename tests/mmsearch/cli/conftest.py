"""Stand-ins for training and evaluation: the command line runs without a model, and what it asked is noted."""

from __future__ import annotations

import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from mmsearch.errors import TrainingError
from mmsearch.evaluation.evaluate import EvalReport, LatentUse
from mmsearch.evaluation.recall import Recall

REPORT = EvalReport(
    model="default",
    fingerprint="ab" * 32,
    data="photos",
    split="val",
    images=1000,
    texts=5000,
    text_to_image=Recall(21.5, 48.0, 63.25, 6),
    image_to_text=Recall(27.5, 57.0, 69.0, 4),
    mean_recall=47.7,
    latent={"image": LatentUse(31.5, 1.2, 0.1, 250, 256)},
    bounds={"image": {"elbo": -900.5, "importance_weighted": None}},
)


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded: what is measured is what was asked for."""
    monkeypatch.setattr("mmsearch.evaluation.subject.Subject.load", lambda data, **options: (data, options))


@pytest.fixture
def asked(subject: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """Stand-ins for training and evaluation, and the calls they got."""
    calls: list[tuple[Any, ...]] = []

    def train(config: Path, **options: object) -> Path:
        calls.append((config, options))
        if config.name == "talks.toml":
            logging.getLogger("mmsearch.training.loop").info("epoch %d", 1)
        if config.name == "diverges.toml":
            raise TrainingError("the loss is nan at step 3; lower the learning rate")
        if config.name == "bare.toml":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        if config.name == "long.toml":
            raise KeyboardInterrupt
        return Path("runs/best")

    def evaluate(subject: tuple[Any, ...]) -> EvalReport:
        calls.append(subject)
        return REPORT

    run, evaluation = types.ModuleType("mmsearch.training.run"), types.ModuleType("mmsearch.evaluation.evaluate")
    run.train = train  # type: ignore[attr-defined]
    evaluation.evaluate = evaluate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmsearch.training.run", run)
    monkeypatch.setitem(sys.modules, "mmsearch.evaluation.evaluate", evaluation)
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path))
    monkeypatch.delenv("MMSEARCH_DEBUG", raising=False)
    return calls
