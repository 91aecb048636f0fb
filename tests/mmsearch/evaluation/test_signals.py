"""Areas under the curve, rank correlation, regression and the signals of a search, each against numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from indexer.base.types import Posterior
from mmsearch.evaluation.signals import Area, areas, auroc, entropy, hit_signals, logistic, spearman


def values(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float64)


@pytest.mark.parametrize(
    ("scores", "wrong", "area"),
    [
        ((1, 2, 3, 4), (False, False, True, True), 1.0),
        ((4, 3, 2, 1), (False, False, True, True), 0.0),
        ((1, 2, 3, 4), (False, True, False, True), 0.75),  # of four pairs, 2 against 3 is the wrong way round
        ((1, 1, 1), (False, True, True), 0.5),
        ((1, 2, 2), (False, False, True), 0.75),  # one pair won, one tied
    ],
)
def test_auroc_by_hand(scores: tuple[float, ...], wrong: tuple[bool, ...], area: float) -> None:
    assert auroc(values(*scores), np.array(wrong)) == area


def test_auroc_needs_both_kinds() -> None:
    assert math.isnan(auroc(values(1, 2), np.array([True, True])))
    assert math.isnan(auroc(values(1, 2), np.array([False, False])))


def test_auroc_and_logistic_regression_equal_those_of_scikit_learn() -> None:
    linear, metrics = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    table = np.stack([draw.normal(5, 3, 300), draw.integers(4, size=300).astype(float)], axis=1)
    wrong = table[:, 0] - 2 * table[:, 1] + draw.normal(0, 3, 300) > 2
    assert auroc(table[:, 1], wrong) == pytest.approx(metrics.roc_auc_score(wrong, table[:, 1]))
    scaled = (table - table.mean(0)) / table.std(0)
    reference = linear.LogisticRegression(C=1 / (1e-3 * 300), tol=1e-10).fit(scaled, wrong)
    np.testing.assert_allclose(logistic(table, wrong)(table), reference.decision_function(scaled), atol=1e-4)


def test_logistic_regression_of_signals_that_tell_everything_or_nothing() -> None:
    odds = logistic(values(1, 2, 3, 4)[:, None], np.array([False, False, True, True]))
    assert np.isfinite(odds(values(1, 4)[:, None])).all()
    assert odds(values(2.5)[:, None])[0] == pytest.approx(0, abs=1e-6)
    constant = logistic(np.ones((4, 1)), np.array([False, True, True, True]))
    np.testing.assert_allclose(constant(np.ones((1, 1))), [math.log(3)], atol=1e-4)


def test_spearman_by_hand() -> None:
    assert spearman(values(1, 2, 3), values(5, 50, 500)) == pytest.approx(1)
    assert spearman(values(1, 2, 3), values(3, 2, 1)) == pytest.approx(-1)
    assert spearman(values(1, 2, 3, 4), values(1, 2, 4, 3)) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert spearman(values(1, 2, 3), values(1, 1, 1)) == 0.0


def test_entropy_of_the_standard_normal_and_of_half_its_width() -> None:
    found = entropy(Posterior(np.zeros((2, 3), np.float32), np.log(np.array([[1] * 3, [0.25] * 3], np.float32))))
    standard = 1.5 * math.log(2 * math.pi * math.e)
    np.testing.assert_allclose(found, [standard, standard - 3 * math.log(2)], rtol=1e-6)


def test_signals_of_a_search() -> None:
    """Text 0 finds its photo with 1, then 0.6; text 1 finds photo 0 in the place of its own; text 2 ties."""
    photos = Posterior(np.array([[2, 0], [3, 4]], np.float32), np.zeros((2, 2), np.float32))
    texts = Posterior(np.array([[5, 0], [1, 0], [2, 1]], np.float32), np.array([[0, 0], [-1, 0], [0, 2]], np.float32))
    found, wrong = hit_signals(photos, texts, np.array([0, 1, 1]))
    np.testing.assert_array_equal(wrong, [False, True, True])
    np.testing.assert_allclose(found["cosine"], [-1, -1, -2 / math.sqrt(5)], rtol=1e-9)
    np.testing.assert_allclose(found["margin"], [-0.4, -0.4, 0], atol=1e-9)
    np.testing.assert_allclose(found["variance"] - found["variance"][0], [0, -0.5, 1], atol=1e-9)


def test_areas_over_halves_and_photos() -> None:
    """Eight photos, two texts each, one of them wrong: the cosine tells, the variance says the opposite, the margin
    tells nothing."""
    group, wrong = np.repeat(np.arange(8), 2), np.tile([True, False], 8)
    signals = {
        "cosine": wrong.astype(float),
        "variance": 1 - wrong.astype(float),
        "margin": np.zeros(16),
    }
    errors, adds = areas(signals, wrong, group)
    assert errors["cosine"] == Area(1, 1, 1)
    assert errors["variance"] == Area(0, 0, 0)
    assert errors["margin"] == Area(0.5, 0.5, 0.5)
    assert errors["variance_and_cosine"] == Area(1, 1, 1)
    assert errors["all"] == Area(1, 1, 1)
    assert adds == {"to_cosine": Area(0, 0, 0), "to_cosine_and_margin": Area(0, 0, 0)}


def test_a_regression_is_measured_on_the_other_half() -> None:
    """The variance tells right from wrong upside down in the other half: what one half teaches fails in the other."""
    draw = np.random.default_rng(0)
    group, wrong = np.arange(400), draw.random(400) < 0.5
    variance = np.where(group % 2 == 0, 1.0, -1.0) * (wrong - 0.5) + 0.1 * draw.standard_normal(400)
    errors, adds = areas({"variance": variance, "cosine": np.zeros(400), "margin": np.zeros(400)}, wrong, group)
    both, added = errors["variance_and_cosine"], adds["to_cosine"]
    assert both is not None
    assert added is not None
    assert both.value < 0.01
    assert added.value == pytest.approx(both.value - 0.5)
    assert errors["variance"] is not None
    assert 0.4 < errors["variance"].value < 0.6  # right in one half, wrong in the other


def test_the_interval_narrows_with_the_photos() -> None:
    draw = np.random.default_rng(1)
    widths = []
    for count in (50, 800):
        wrong = draw.random(count) < 0.5
        noise = wrong + draw.standard_normal(count)
        area = areas(dict.fromkeys(("variance", "cosine", "margin"), noise), wrong, np.arange(count))[0]["cosine"]
        assert area is not None
        assert area.low < 0.76 < area.high  # one standard deviation apart: the normal distribution at 1 / sqrt(2)
        widths.append(area.high - area.low)
    assert widths[1] < widths[0] / 2


def test_no_area_where_nothing_is_wrong() -> None:
    signals = dict.fromkeys(("variance", "cosine", "margin"), np.arange(4.0))
    errors, adds = areas(signals, np.zeros(4, bool), np.arange(4))
    assert set(errors.values()) == {None}
    assert set(adds.values()) == {None}


def test_figures_on_fixed_signals_are_those_of_the_statistics_written_by_hand() -> None:
    """Computed before the ranks were SciPy's and the regression scikit-learn's."""
    draw = np.random.default_rng(7)
    group, wrong = np.repeat(np.arange(60), 3), draw.random(180) < 0.4
    signals = {
        "variance": 0.3 * wrong + draw.standard_normal(180),
        "cosine": np.round(wrong + draw.standard_normal(180), 1),  # ties
        "margin": 0.5 * wrong + draw.standard_normal(180),
    }
    errors, adds = areas(signals, wrong, group, seed=3)
    expected = {
        "variance": (0.5204195589, 0.4336921989, 0.6043117332),
        "cosine": (0.8226151058, 0.7447279587, 0.8864682816),
        "variance_and_cosine": (0.8087325067, 0.7322917805, 0.8750012863),
        "cosine_and_margin": (0.8117721394, 0.7354815705, 0.8796907796),
        "all": (0.8057594884, 0.7340959558, 0.8754888664),
        "to_cosine": (-0.0138825991, -0.0291480468, 0.0024914463),
    }
    for name, figures in expected.items():
        found = (errors | adds)[name]
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx(figures, abs=1e-6)
    assert spearman(signals["cosine"], signals["margin"]) == pytest.approx(0.0784458567, abs=1e-9)


def test_spearman_equals_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(2)
    for _ in range(20):
        one, two = np.round(draw.normal(size=30), 1), draw.normal(size=30)  # ties in one of them
        assert spearman(one, two) == pytest.approx(stats.spearmanr(one, two).statistic, abs=1e-12)
