"""What every evaluation begins and ends with: captions with their pictures, posteriors in batches, rounded numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import Posterior
from mmsearch.data.datasets import Example
from mmsearch.errors import DataError
from mmsearch.evaluation.subject import _BATCH, Report, Subject, in_batches, rounded
from tests.circle_model import Circle, directions

EXAMPLES = [
    Example(Path("10.png"), ("at 10", "near 12"), "val"),
    Example(Path("40.png"), (), "val"),
    Example(Path("90.png"), ("at 90",), "val"),
]


def test_captions_know_their_picture() -> None:
    subject = Subject(Circle(), EXAMPLES, "photos", "val")
    assert subject.captions == ["at 10", "near 12", "at 90"]
    np.testing.assert_array_equal(subject.owner, [0, 0, 2])
    np.testing.assert_allclose(subject.pictures().mu, 3 * directions(10, 40, 90), atol=1e-6)
    np.testing.assert_allclose(subject.texts(subject.captions).mu, 3 * directions(10, 12, 90), atol=1e-6)


def test_the_facts_of_a_report() -> None:
    facts = Subject(Circle(), EXAMPLES, "photos", "val").facts
    assert {key: facts[key] for key in ("model", "fingerprint", "data", "split")} == {
        "model": "circle", "fingerprint": "f" * 64, "data": "photos", "split": "val",
    }  # fmt: skip
    assert 0 <= facts["seconds"] < 60


@pytest.mark.parametrize("count", [1, _BATCH, 2 * _BATCH + 1])
def test_batches_come_back_in_order(count: int) -> None:
    sizes: list[int] = []

    def embed(items: list[int]) -> Posterior:
        sizes.append(len(items))
        column = np.array(items, np.float32)[:, None]
        return Posterior(column, -column)

    found = in_batches(embed, list(range(count)), "numbers")
    np.testing.assert_array_equal(found.mu[:, 0], np.arange(count))
    np.testing.assert_array_equal(found.logvar, -found.mu)
    assert sum(sizes) == count
    assert max(sizes) <= _BATCH


def test_numbers_are_rounded_to_what_the_data_can_tell() -> None:
    values = {
        "a": 1234.567,
        "b": 12.3456,
        "c": 0.123456,
        "d": -0.00004,
        "e": 7,
        "f": "x",
        "g": {"h": 99.999},
        "i": None,
    }
    wanted = {"a": 1235, "b": 12.35, "c": 0.1235, "d": -0.0, "e": 7, "f": "x", "g": {"h": 100.0}, "i": None}
    assert rounded(values) == wanted


def test_a_report_prints_its_fields() -> None:
    @dataclass(frozen=True)
    class Result(Report):
        model: str
        recall: float

    assert Result("circle", 12.3456).to_dict() == {"model": "circle", "recall": 12.35}


def test_a_data_set_that_is_not_there_is_told_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data set"):
        Subject.load(tmp_path / "none", model="no-such-model")
