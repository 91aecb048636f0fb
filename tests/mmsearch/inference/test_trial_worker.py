"""What the process of a trial answers: a fingerprint, or what is wrong, and never an exception."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import Posterior
from indexer.base.worker import Message
from mmsearch.inference import trial_worker
from mmsearch.inference.known_models import declared_fingerprint
from mmsearch.inference.trial_worker import try_out
from mmsearch.models.files import SHIPPED
from tests.fakes import FakeEncoder
from tests.mmsearch.inference.hostile import copy_of_the_default_model

pytestmark = pytest.mark.skipif(not (SHIPPED / "model.json").exists(), reason="this checkout holds no default model")


def answer(folder: Path) -> Message:
    return try_out({"name": "mine", "folder": str(folder), "backbone": None}, limited=False)


def test_a_model_answers_by_its_fingerprint(tmp_path: Path) -> None:
    folder = copy_of_the_default_model(tmp_path / "model")
    assert answer(folder) == {"fingerprint": declared_fingerprint(str(folder))}
    for path in folder.glob("*.safetensors"):
        path.unlink()
    assert "no *.safetensors" in answer(folder)["error"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("no torch", name="torch"), {"missing": "torch"}),
        (MemoryError(), {"error": "model 'mine' needs more memory than its weights account for; name another"}),
        (
            RuntimeError("a shape\nand more"),
            {"error": "model 'mine' does not run (a shape); copy it again or name another"},
        ),
        (OSError(), {"error": "model 'mine' does not run (OSError); copy it again or name another"}),
    ],
)
def test_what_fails_is_an_answer(
    error: Exception, said: Message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise error

    monkeypatch.setattr(trial_worker, "load_found", fail)
    assert answer(copy_of_the_default_model(tmp_path / "model")) == said


@pytest.mark.parametrize(
    ("mu", "said"),
    [
        (np.zeros((1, 5), np.float32), r"[1, 5]"),
        (np.zeros((1, 16), np.float64), "float64"),
        (np.full((1, 16), np.nan, np.float32), "expected finite"),
    ],
)
def test_vectors_of_another_form_are_refused(
    mu: np.ndarray, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FakeEncoder()
    monkeypatch.setattr(model, "encode_images", lambda batch: Posterior(mu, mu))
    monkeypatch.setattr(trial_worker, "load_found", lambda *given: model)
    assert said in answer(copy_of_the_default_model(tmp_path / "model"))["error"]


def test_a_side_of_gigabytes_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_worker, "load_found", lambda *given: FakeEncoder(side_px=1 << 20))
    assert "1048576 pixels" in answer(copy_of_the_default_model(tmp_path / "model"))["error"]
