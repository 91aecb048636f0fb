"""How well signals tell wrong from right: areas under the ROC curve, with combinations and intervals.

In: posteriors of photos and of the texts that ask for them. Out: signals, and `Area`s. Rank correlation lies here too.
Ranks are SciPy's, the regression is scikit-learn's. Next: `uncertainty.py`, which asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from indexer.base.types import Posterior
from mmsearch.evaluation.recall import unit_rows

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
_TIE = 1e-9
_CHUNK_QUERIES = 1024

COMBINED: Mapping[str, tuple[str, ...]] = {
    "variance_and_cosine": ("variance", "cosine"),
    "cosine_and_margin": ("cosine", "margin"),
    "all": ("variance", "cosine", "margin"),
}
ADDS = {"to_cosine": ("variance_and_cosine", "cosine"), "to_cosine_and_margin": ("all", "cosine_and_margin")}
RESAMPLES = 500
_RIDGE = 1e-3  # per row, on standardised signals: keeps the fit finite where they tell everything


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve, or a difference of two, with its 95 percent interval (bootstrap over photos)."""

    value: float
    low: float
    high: float


def entropy(posterior: Posterior) -> Float64Array:
    """Differential entropy of each posterior, nats `[n]`."""
    return np.asarray(0.5 * (np.log(2 * math.pi * math.e) + posterior.logvar.astype(np.float64)).sum(1))


def hit_signals(
    photos: Posterior, texts: Posterior, owner: NDArray[np.integer]
) -> tuple[dict[str, Float64Array], BoolArray]:
    """Signals of each text's search `[m]`, higher where the first hit should be wrong, and whether it is `[m]`.

    A tie for the first place is wrong.
    """
    gallery = unit_rows(photos.mu)
    top, second, wrong = (np.empty(len(texts)) for _ in range(3))
    for start in range(0, len(texts), _CHUNK_QUERIES):
        rows = slice(start, start + _CHUNK_QUERIES)
        scores = unit_rows(texts.mu[rows]) @ gallery.T  # [c, n]
        own = scores[np.arange(len(scores)), owner[rows]]
        wrong[rows] = (scores >= own[:, None] - _TIE).sum(1) > 1
        second[rows], top[rows] = np.partition(scores, -2, axis=1)[:, -2:].T
    return {"variance": entropy(texts), "cosine": -top, "margin": second - top}, wrong.astype(bool)


def areas(
    signals: Mapping[str, Float64Array], wrong: BoolArray, group: NDArray[np.integer], *, seed: int = 0
) -> tuple[dict[str, Area | None], dict[str, Area | None]]:
    """Areas of each signal and of `COMBINED`, and what the variance adds to the others (`ADDS`).

    All are means over two halves, measured each with a regression fitted on the other, so that they compare.

    Args:
        signals: each `[m]`, higher where wrong is expected.
        wrong: `[m]`.
        group: the photo of each query `[m]`: halves and resamples take all queries of a photo together.
        seed: of the bootstrap.

    Returns:
        None in the place of an area where a half has no wrong or no right query.
    """
    second = np.unique(group, return_inverse=True)[1] % 2 == 1  # [m]
    halves = (~second, second)
    judged = {name: values.astype(np.float64) for name, values in signals.items()}
    for name, parts in COMBINED.items():
        table = np.stack([signals[part] for part in parts], axis=1)  # [m, s]
        judged[name] = np.empty(len(wrong))
        for half, other in (halves, halves[::-1]):
            judged[name][half] = logistic(table[other], wrong[other])(table[half])
    measured = {name: _over_halves(values, wrong, halves) for name, values in judged.items()}
    draws = _draws(group, seed)
    drawn = {
        name: np.array([_over_halves(values[rows], wrong[rows], (~second[rows], second[rows])) for rows in draws])
        for name, values in judged.items()
    }
    errors = {name: _area(measured[name], drawn[name]) for name in judged}
    adds = {
        name: _area(measured[more] - measured[less], drawn[more] - drawn[less]) for name, (more, less) in ADDS.items()
    }
    return errors, adds


def auroc(values: Float64Array, wrong: BoolArray) -> float:
    """Chance that a wrong query has the higher value of a wrong and a right one, a tie half; NaN without both kinds.

    By the sum of ranks (Hanley & McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747). The bootstrap asks
    6,000 times: scikit-learn's `roc_auc_score`, to which a test holds this, takes 20 to 100 times as long.
    """
    positives = int(wrong.sum())
    negatives = len(wrong) - positives
    if not positives or not negatives:
        return float("nan")
    above = rankdata(values)[wrong].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def spearman(one: Float64Array, two: Float64Array) -> float:
    """Rank correlation, the correlation of the ranks; 0 where one of the two is constant."""
    a, b = (rankdata(values) - (len(values) + 1) / 2 for values in (one, two))
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread else 0.0


def logistic(table: Float64Array, wrong: BoolArray) -> Callable[[Float64Array], Float64Array]:
    """Logistic regression on rows `[m, s]`, standardised; what it returns gives rows `[n, s]` log odds `[n]`."""
    if wrong.all() or not wrong.any():  # nothing to tell apart
        return lambda rows: np.zeros(len(rows))
    regression = LogisticRegression(C=1 / (_RIDGE * len(table)), solver="newton-cholesky", tol=1e-8)
    found: Callable[[Float64Array], Float64Array] = (
        make_pipeline(StandardScaler(), regression).fit(table, wrong).decision_function
    )
    return found


def _over_halves(values: Float64Array, wrong: BoolArray, halves: Sequence[BoolArray]) -> float:
    return float(np.mean([auroc(values[half], wrong[half]) for half in halves]))


def _draws(group: NDArray[np.integer], seed: int) -> list[NDArray[np.int64]]:
    """Rows of the queries of as many photos as there are, drawn with replacement, `RESAMPLES` times."""
    _, inverse = np.unique(group, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(inverse))[:-1])  # of each photo
    draw = np.random.default_rng(seed)
    return [np.concatenate([rows[i] for i in draw.integers(len(rows), size=len(rows))]) for _ in range(RESAMPLES)]


def _area(value: float, drawn: Float64Array) -> Area | None:
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(drawn):
        return None
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Area(float(value), float(low), float(high))
