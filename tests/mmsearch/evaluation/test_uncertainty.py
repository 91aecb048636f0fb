"""Does the variance grow? A model whose variance is the sharpness of a photo and the number of words of a text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.base.types import Posterior
from mmsearch.data.datasets import Example
from mmsearch.errors import DataError
from mmsearch.evaluation.subject import Subject
from mmsearch.evaluation.uncertainty import Spread, evaluate_uncertainty, growth, spread
from mmsearch.inference.pictures import Picture, to_image

SIDE_PX = 32


class Sharpness:
    """Log variance: of a photo, minus its contrast, -3..0; of a text, minus a tenth of its words. One is the prior.

    Means: a photo by its file, a text by its first word, among 8 directions.
    """

    name, fingerprint, side_px = "sharpness", "f" * 64, SIDE_PX

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.texts: list[str] = []

    def embed_images(self, images: Sequence[Picture]) -> Posterior:
        self.files += [image for image in images if isinstance(image, Path)]
        directions = [int(image.stem) if isinstance(image, Path) else 0 for image in images]
        contrast = [np.asarray(to_image(image, SIDE_PX), float).std() for image in images]
        return rows(directions, [-value / 50 for value in contrast])

    def embed_texts(self, texts: list[str]) -> Posterior:
        self.texts += texts
        return rows([int(text.split()[0]) for text in texts], [-len(text.split()) / 10 for text in texts])


def rows(directions: Sequence[int], logvar: Sequence[float]) -> Posterior:
    mu = np.zeros((len(directions), 8), np.float32)
    mu[np.arange(len(directions)), directions] = 2.0
    return Posterior(mu, np.repeat(np.array(logvar, np.float32)[:, None], 8, axis=1))


def constant(*logvars: float) -> Posterior:
    return rows([0] * len(logvars), logvars)


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Six photos of coloured noise, with captions of 5 and of 10 words; the second one of photo 3 asks for photo 2."""
    draw = np.random.default_rng(0)
    made = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        Image.fromarray(draw.integers(256, size=(48, 40, 3)).astype(np.uint8)).save(path)
        second = f"{2 if i == 3 else i} one two three four"
        made.append(Example(path, (f"{i} two three four five six seven eight nine ten", second), "val"))
    return made


def test_spread_by_hand() -> None:
    found = spread(constant(0.0, np.log(0.25)))
    assert found.mean_logvar == pytest.approx(np.log(0.25) / 2)
    assert found.total_variance == pytest.approx(8 * (1 + 0.25) / 2)
    assert found.entropy == pytest.approx(4 * np.log(2 * np.pi * np.e) + 2 * np.log(0.25))


def test_growth_by_hand() -> None:
    """Of two items one grows at both steps; the other shrinks at the first and ends above where it began."""
    found = growth({"a": constant(-3, -2), "b": constant(-2, -2.5), "c": constant(-1, -1)})
    assert list(found.levels) == ["a", "b", "c"]
    assert found.spearman == pytest.approx(1)
    assert found.spearman_items == pytest.approx((1 + 0.5) / 2)
    assert (found.rises, found.items) == (100.0, 2)
    shrinks = growth({"a": constant(-1, -1), "b": constant(-2, -1)})
    assert shrinks.spearman == pytest.approx(-1)
    assert shrinks.spearman_items == pytest.approx(-0.5)  # the second does not change
    assert shrinks.rises == 0.0


def test_an_item_that_loses_nothing_says_nothing() -> None:
    lost = np.array([[0.0, 0.0], [0.0, 5.0], [0.0, 9.0]])
    found = growth({"a": constant(-1, -3), "b": constant(-1, -2), "c": constant(-1, -1)}, lost)
    assert found.spearman_items == pytest.approx(0.5)
    assert found.rises == 50.0


def test_the_report(examples: list[Example]) -> None:
    model = Sharpness()
    report = evaluate_uncertainty(Subject(model, examples, data="set", split="val"))
    assert (report.images, report.texts, report.data, report.split) == (6, 12, "set", "val")
    assert model.files == [example.image for example in examples]  # the altered ones come as pictures
    assert list(report.words.levels) == ["whole", "8", "4", "2", "1"]
    assert report.words.levels["whole"].mean_logvar == pytest.approx(-1.0)
    assert report.words.levels["2"].mean_logvar == pytest.approx(-0.2)
    assert report.words.spearman == pytest.approx(1)
    assert report.words.spearman_items == pytest.approx(1)
    assert "3 two three four" in model.texts
    assert list(report.blur.levels) == ["0", "2", "4", "8", "16"]
    assert report.blur.spearman == pytest.approx(1)
    assert (report.blur.rises, report.blur.items) == (100.0, 6)
    assert report.blur.levels["0"].mean_logvar < -0.5
    assert list(report.altered) == ["grey", "noise", "flat"]
    assert report.altered["flat"].mean_logvar > report.blur.levels["16"].mean_logvar
    assert report.altered["grey"].mean_logvar > report.blur.levels["0"].mean_logvar
    assert report.altered["noise"].mean_logvar < report.altered["flat"].mean_logvar
    assert report.wrong == pytest.approx(100 / 12)
    assert report.errors["variance"] is None  # a half without an error


def test_errors_are_told_by_the_variance_where_short_captions_fail(examples: list[Example]) -> None:
    wrong = [Example(e.image, (e.captions[0], f"{(i + 1) % 6} and more"), "val") for i, e in enumerate(examples)]
    report = evaluate_uncertainty(Subject(Sharpness(), wrong))
    assert report.wrong == 50.0
    variance, cosine = report.errors["variance"], report.errors["cosine"]
    assert variance is not None
    assert cosine is not None
    assert (variance.value, variance.low, variance.high) == (1, 1, 1)
    assert cosine.value == 0.5
    adds = report.variance_adds["to_cosine"]
    assert adds is not None
    assert adds.value == 0.5


def test_report_is_plain_json_and_repeats(examples: list[Example]) -> None:
    one, two = (evaluate_uncertainty(Subject(Sharpness(), examples), seed=3).to_dict() for _ in range(2))
    printed = json.loads(json.dumps(one))
    assert printed["words"]["levels"]["1"] == Spread(-0.1, 7.24, 10.95).__dict__
    assert printed["errors"]["all"] is None
    one.pop("seconds"), two.pop("seconds")
    assert one == two


def test_too_few_photos(examples: list[Example]) -> None:
    with pytest.raises(DataError, match="3 photos; telling right from wrong needs at least 4"):
        evaluate_uncertainty(Subject(Sharpness(), examples[:3]))
