"""Fusing photos with captions: every way by hand, who asks and who is fused, and what the report says."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import Posterior
from indexer.search.query_bank import QueryBank
from mmsearch.data.datasets import Example
from mmsearch.errors import DataError
from mmsearch.evaluation.fusion_eval import FUSIONS, compare, evaluate_fusion, gain_over, pooled
from mmsearch.evaluation.subject import Subject


class Directions:
    """Photo `3.png` lies in direction 3; so does each text whose first word is `3`."""

    name, fingerprint = "directions", "f" * 64
    pictures = 0

    def embed_images(self, images: Sequence[Path]) -> Posterior:
        self.pictures += len(images)
        return rows([int(image.stem) for image in images])

    def embed_texts(self, texts: list[str]) -> Posterior:
        return rows([int(text.split()[0]) for text in texts])


def rows(directions: Sequence[int]) -> Posterior:
    mu = np.zeros((len(directions), 16), np.float32)
    mu[np.arange(len(directions)), directions] = 2.0
    return Posterior(mu, np.full_like(mu, -np.log(2)))


def one(*mu: float, precision: float) -> Posterior:
    means = np.array([mu], np.float32)
    return Posterior(means, np.full_like(means, -np.log(precision)))


def examples(*captions: tuple[str, ...]) -> list[Example]:
    return [Example(Path(f"{i}.png"), own, "val") for i, own in enumerate(captions)]


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("captions_alone", (1, 0)),
        ("average_of_vectors", (0.6 + 1, 0.8)),
        ("average_of_means", (3 + 1, 4)),
        ("product", (2, 1.6)),  # (2 (3, 4) + 4 (1, 0)) / (1 + 1 + 3)
        ("product_of_pooled", (2, 1.6)),
        ("product_of_pooled_equal_lengths", (5.2, 1.6)),  # the caption's mean is (5, 0)
        ("as_indexed", (5.2, 1.6)),
    ],
)
def test_each_way_with_one_caption(way: str, expected: tuple[float, float]) -> None:
    found = FUSIONS[way](one(3, 4, precision=2), [one(1, 0, precision=4)])
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("captions_alone", (1, 1)),
        ("average_of_vectors", (1.6, 1.8)),
        ("average_of_means", (4, 6)),
        ("product", (10 / 6, 12 / 6)),  # (2 (3, 4) + 4 (1, 0) + 2 (0, 2)) / (1 + 1 + 3 + 1)
        ("product_of_pooled", (2, 2.5)),  # pooled: precision 3, mean (4/3, 4/3); (2 (3, 4) + 3 (4/3, 4/3)) / 4
        ("as_indexed", (26 / 6, 18 / 6)),  # the captions' means are (5, 0) and (0, 5)
    ],
)
def test_each_way_with_two_captions(way: str, expected: tuple[float, float]) -> None:
    found = FUSIONS[way](one(3, 4, precision=2), [one(1, 0, precision=4), one(0, 2, precision=2)])
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_pooling_weighs_by_precision_and_equal_experts_change_nothing() -> None:
    found = pooled([one(0, 1, precision=3), one(4, 1, precision=1)])
    np.testing.assert_allclose(found.mu, [[1, 1]], rtol=1e-6)  # (3*0 + 1*4) / 4
    np.testing.assert_allclose(found.logvar, [[-np.log(2)] * 2], rtol=1e-6)
    same = pooled([one(1.5, -2, precision=3)] * 5)
    np.testing.assert_allclose(same.mu, [[1.5, -2]], rtol=1e-6)


def test_a_caption_asks_and_those_after_it_are_fused() -> None:
    """Captions 0 and 1 are right, 2 is the other photo's: caption 0 alone is right and followed by a right one."""
    captions = [rows([0, 1]), rows([0, 1]), rows([1, 0])]
    found = compare(rows([0, 1]), captions, 1)
    assert found["captions_alone"].recall.r1 == pytest.approx(100 / 3)
    assert found["captions_alone"].recall.r5 == 100.0
    alone = compare(rows([0, 1]), captions, 0)
    assert list(alone) == ["photo_alone"]
    assert alone["photo_alone"].recall.r1 == pytest.approx(200 / 3)
    assert (alone["photo_alone"].gain, alone["photo_alone"].itself) == (None, 100.0)


def test_gain_over_the_average_of_vectors() -> None:
    """Long means of photos that are wrong: the average of means follows them, that of unit vectors the captions."""
    images = Posterior(10 * rows([1, 2, 3, 0]).mu, rows([1, 2, 3, 0]).logvar)
    texts = rows([0, 1, 2, 3])
    sure = Posterior(texts.mu, np.full_like(texts.mu, -3.0))
    found = compare(images, [sure, sure], 1)
    assert found["average_of_means"].recall.r1 == 0.0
    assert found["captions_alone"].recall.r1 == 100.0
    assert found["captions_alone"].itself == 0.0  # the photos look like one another's captions
    assert found["average_of_vectors"].recall.r1 == 0.0  # the other photo scores as high: a tie counts against us
    assert found["as_indexed"].recall.r1 == 100.0  # the captions are surer
    gain = found["as_indexed"].gain
    assert gain is not None
    assert (gain.r1, gain.low, gain.high) == (100.0, 100.0, 100.0)
    own = found["average_of_vectors"].gain
    assert own is not None
    assert (own.r1, own.low, own.high) == (0.0, 0.0, 0.0)


def test_the_interval_is_that_of_drawing_photos() -> None:
    """One photo of four gains: among four drawn, none does with chance 0.32, three with 0.05, four with 0.004."""
    draws = np.random.default_rng(0).integers(4, size=(1000, 4))
    both_captions = np.ones((2, 4), np.int64)
    gain = gain_over(both_captions, np.array([[2, 1, 1, 1]] * 2), draws)
    assert (gain.r1, gain.low, gain.high) == (25.0, 0.0, 75.0)
    one_caption = gain_over(both_captions, np.array([[2, 1, 1, 1], [1, 1, 1, 1]]), draws)
    assert (one_caption.r1, one_caption.low, one_caption.high) == (12.5, 0.0, 37.5)


def test_half_a_library_with_captions() -> None:
    """Photo 1 has no caption and looks as photo 0's caption says: it is taken for photo 0, which has moved away."""
    images, texts = rows([5, 0, 2, 3]), rows([0, 1, 2, 3])
    found = compare(images, [texts, texts], 1)
    half = found["average_of_vectors"]
    assert half.half_with is not None
    assert half.half_without is not None
    assert half.half_with.r1 == 50.0  # 0 is missed, 2 is found
    assert half.half_without.r1 == 50.0  # 1 is missed, 3 is found by the photo alone
    assert half.recall.r1 == 75.0  # with its caption, 1 is found, and still stands before 0
    assert found["captions_alone"].half_with is None


def test_a_bank_takes_off_what_hubs_have_ahead() -> None:
    """In the library above photo 1 lies where the caption of 0 points, and near what is usually asked; 0 is not."""
    images, texts = rows([5, 0, 2, 3]), rows([0, 1, 2, 3])
    usual = 0.3 * (texts.mu[:1] - images.mu[:1])  # hubness of photo 1 is 0.6, of the others 0
    bank = QueryBank("text", usual.astype(np.float32), np.ones(1, np.float32), 15.0)
    plain, corrected = (compare(images, [texts, texts], 1, bank=one)["average_of_vectors"] for one in (None, bank))
    assert plain.half_with is not None
    assert corrected.half_with is not None
    assert (plain.half_with.r1, corrected.half_with.r1) == (50.0, 100.0)
    assert corrected.itself == plain.itself  # a picture asks pictures

    class Knowing(Directions):
        def query_bank(self, modality: str) -> QueryBank | None:
            return bank if modality == "text" else None

    data = examples(*[(f"{i} a", f"{i} b") for i in range(4)])
    report = evaluate_fusion(Subject(Knowing(), data))
    assert report.cosine == evaluate_fusion(Subject(Directions(), data)).fusions
    assert evaluate_fusion(Subject(Directions(), data)).cosine == {}


def test_the_report(caplog: pytest.LogCaptureFixture) -> None:
    model = Directions()
    data = examples(*[tuple(f"{i} {j}" for j in range(5)) for i in range(6)], ("6 a",))
    with caplog.at_level(logging.WARNING):
        report = evaluate_fusion(Subject(model, data, data="set", split="val"))
    assert "1 of 7 photos have fewer than 5 captions" in caplog.text
    assert (report.images, report.queries, report.left_out, model.pictures) == (6, 30, 1, 6)
    assert list(report.fusions) == ["0", "1", "4"]
    assert all(way.recall.r1 == 100.0 for ways in report.fusions.values() for way in ways.values())
    assert report.product_wins == {"1": True, "4": True}
    printed = json.loads(json.dumps(report.to_dict()))
    assert printed["fusions"]["4"]["as_indexed"]["recall"] == {"r1": 100.0, "r5": 100.0, "r10": 100.0, "median_rank": 1}
    assert printed["fusions"]["4"]["as_indexed"]["gain"] == {"r1": 0.0, "low": 0.0, "high": 0.0}


def test_fewer_captions_and_too_few() -> None:
    report = evaluate_fusion(Subject(Directions(), examples(("0 a", "0 b"), ("1 a", "1 b", "1 c"))))
    assert list(report.fusions) == ["0", "1"]
    assert (report.images, report.queries) == (2, 4)  # as many captions of each photo
    with pytest.raises(DataError, match="2 photos with 1 captions each; one asks"):
        evaluate_fusion(Subject(Directions(), examples(("0 a",), ("1 a",))))
    with pytest.raises(DataError, match="0 photos"):
        evaluate_fusion(Subject(Directions(), []))


def test_the_product_does_not_win_where_the_average_is_right() -> None:
    """Captions that are surer than the photos, and wrong: weighing by precision follows them."""

    class Misled(Directions):
        def embed_texts(self, texts: list[str]) -> Posterior:
            found = rows([int(text.split()[1]) for text in texts])
            return Posterior(found.mu, np.full_like(found.mu, -np.log(8)))

        def embed_images(self, images: Sequence[Path]) -> Posterior:
            found = super().embed_images(images)
            return Posterior(3 * found.mu, found.logvar)

    # the first caption asks rightly, the second names another photo; and the other way round
    report = evaluate_fusion(Subject(Misled(), examples(*[(f"{i} {i}", f"{i} {(i + 1) % 4}") for i in range(4)])))
    ways = report.fusions["1"]
    assert ways["as_indexed"].recall.r1 == 0.0
    assert ways["average_of_means"].recall.r1 == 50.0
    assert report.product_wins == {"1": False}
