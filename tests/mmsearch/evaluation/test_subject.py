"""What every evaluation starts from: captions by picture, posteriors in batches, rounded reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import Posterior
from mmsearch.data.datasets import Example
from mmsearch.errors import DataError
from mmsearch.evaluation.subject import Report, Subject, in_batches, rounded
from tests.fakes import FakeEncoder


def subject() -> Subject:
    examples = [Example(Path("a.jpg"), ("one", "two"), "val"), Example(Path("b.jpg"), ("three",), "val")]
    return Subject(FakeEncoder(), examples, data="set", split="val")  # type: ignore[arg-type]


def test_captions_and_their_pictures() -> None:
    assert subject().captions == ["one", "two", "three"]
    assert subject().owner.tolist() == [0, 0, 1]


def test_the_facts_of_a_report() -> None:
    facts = subject().facts
    assert (facts["model"], facts["fingerprint"]) == (FakeEncoder().name, FakeEncoder().fingerprint)
    assert (facts["data"], facts["split"]) == ("set", "val")
    assert 0 <= facts["seconds"] < 60


def test_items_in_batches_keep_their_order() -> None:
    sizes: list[int] = []

    def embed(items: list[int]) -> Posterior:
        sizes.append(len(items))
        mu = np.array(items, np.float32)[:, None]
        return Posterior(mu, -mu)

    found = in_batches(embed, list(range(600)), "numbers")
    assert sizes == [256, 256, 88]
    assert found.mu[:, 0].tolist() == list(range(600))
    assert (found.logvar == -found.mu).all()


def test_a_report_rounds_to_what_the_data_can_tell() -> None:
    @dataclass(frozen=True)
    class Found(Report):
        small: float
        middle: float
        large: float
        inner: dict[str, float]

    found = Found(0.123456, 12.3456, 1234.5, {"x": 0.00004}).to_dict()
    assert found == {"small": 0.1235, "middle": 12.35, "large": 1234, "inner": {"x": 0.0}}
    assert rounded("as it is") == "as it is"


def test_a_data_set_that_is_not_there_is_told_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data set"):
        Subject.load(tmp_path / "none", model="no-such-model")
