"""`mmsearch eval --fusion`: is a photo found better by its fusion with what is said of it, and by which fusion?

    one caption of a photo asks; 0, 1 or 4 of its other captions are fused into the photo -> text-to-image recall

In: a data set with several captions a photo and a model. Out: a `FusionReport`, a line for each way of fusing and each
number of captions. Every caption asks in turn, and never meets itself. Each way is measured twice: in a library where
every photo has captions, and where every second one has, since a photo is also found or missed among the others; of a
model with a bank of queries as a search ranks, by cosine less hubness, and by cosine alone.
Next: `uncertainty.py`, what the variances are worth.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from indexer.base.types import Posterior
from indexer.ingest.fusion import caption_expert
from indexer.search.query_bank import QueryBank, bank_of
from mmsearch.errors import DataError
from mmsearch.evaluation.recall import Recall, best_ranks, unit_rows
from mmsearch.evaluation.subject import Report, Subject, in_batches, joined
from mmsearch.inference.posterior import product_of_experts

log = logging.getLogger(__name__)

COUNTS = (0, 1, 4)
BASELINE = "average_of_vectors"
RESAMPLES = 1000
Float64Array = NDArray[np.float64]
Fusion = Callable[[Posterior, Sequence[Posterior]], NDArray[np.floating]]


@dataclass(frozen=True)
class Gain:
    """R@1 above that of averaging the unit vectors, points, with its 95 percent interval (bootstrap over photos)."""

    r1: float
    low: float
    high: float


@dataclass(frozen=True)
class Fused:
    """What one way of fusing is worth; recalls are percent, text to image.

    Attributes:
        recall: where every photo has the captions fused in.
        gain: over the average of vectors; None with no caption to fuse.
        itself: percent of the photos that are found first by the photo itself, as a picture asks.
        half_with: where every second photo has them: of the photos that have. half_without: of those that have none.
    """

    recall: Recall
    gain: Gain | None
    itself: float
    half_with: Recall | None
    half_without: Recall | None


@dataclass(frozen=True)
class FusionReport(Report):
    """What `mmsearch eval --fusion` found.

    Attributes:
        queries: captions that asked, every one of a photo in turn.
        fusions: by the number of captions fused in (`"0"`, `"1"`, `"4"`), then by the way of fusing.
        cosine: the same by cosine alone, of a model with a bank of queries; else empty.
        product_wins: by number of captions: the indexer's fusion has the best R@1 of all ways that use the photo.
        left_out: photos with too few captions.
    """

    model: str
    fingerprint: str
    data: str
    split: str
    images: int
    queries: int
    fusions: Mapping[str, Mapping[str, Fused]]
    product_wins: Mapping[str, bool]
    cosine: Mapping[str, Mapping[str, Fused]] = field(default_factory=dict)
    left_out: int = 0
    seed: int = 0
    seconds: float = 0.0


def evaluate_fusion(subject: Subject, *, seed: int = 0) -> FusionReport:
    """Measure every way of fusing photos with captions.

    Counts that half of the photos have too few captions for are left out, and so are the photos that have too few.

    Args:
        subject: model and examples.
        seed: of the bootstrap.

    Raises:
        DataError: one caption a photo.
        DecodeError: a picture that cannot be read.
    """
    model, examples = subject.model, subject.examples
    typical = sorted(len(example.captions) for example in examples)[len(examples) // 2] if examples else 0
    counts = [count for count in COUNTS if count < typical]
    if len(counts) < 2:
        raise DataError(
            f"{len(examples)} photos with {typical} captions each; one asks and others are fused: give two or more"
        )
    each = counts[-1] + 1
    used = [example for example in examples if len(example.captions) >= each]
    if len(used) < len(examples):
        log.warning("%d of %d photos have fewer than %d captions", len(examples) - len(used), len(examples), each)
    images = in_batches(model.embed_images, [example.image for example in used], "pictures")  # [n, d]
    texts = in_batches(model.embed_texts, [c for example in used for c in example.captions[:each]], "captions")
    captions = [texts[np.arange(r, len(texts), each)] for r in range(each)]  # each [n, d]
    bank = bank_of(model, "text")
    found = {str(count): compare(images, captions, count, seed=seed, bank=bank) for count in counts}
    by_cosine = {} if bank is None else {str(count): compare(images, captions, count, seed=seed) for count in counts}
    return FusionReport(
        **subject.facts,
        images=len(used),
        queries=len(texts),
        fusions=found,
        product_wins={count: _wins(ways) for count, ways in found.items() if count != "0"},
        cosine=by_cosine,
        left_out=len(examples) - len(used),
        seed=seed,
    )


def compare(
    images: Posterior, captions: Sequence[Posterior], count: int, *, seed: int = 0, bank: QueryBank | None = None
) -> dict[str, Fused]:
    """Every way of fusing `count` captions into each photo, asked for by each other caption in turn.

    Args:
        images: posteriors `[n, d]`.
        captions: c posteriors `[n, d]`, the r-th of them holding the r-th caption of each photo; `count < c`.
        count: how many of the captions that follow the asking one, round and round, are fused in.
        seed: of the bootstrap.
        bank: of texts, by which the hubness of each library's vectors is taken off; None ranks by cosine alone.
    """
    if not count:
        alone = Recall.of(_ranks(images.mu, captions, bank))
        return {"photo_alone": Fused(alone, None, _itself(images, [images.mu]), None, None)}
    has = np.arange(len(images)) % 2 == 0
    ranks: dict[str, NDArray[np.int64]] = {}
    halves: dict[str, NDArray[np.int64]] = {}
    itself: dict[str, float] = {}
    for name, fuse in FUSIONS.items():
        fused = [
            fuse(images, [captions[(r + 1 + i) % len(captions)] for i in range(count)]) for r in range(len(captions))
        ]
        ranks[name] = _by_turns(fused, captions, bank)
        itself[name] = _itself(images, fused)
        if name not in WITHOUT_PHOTO:
            mixed = [np.where(has[:, None], vectors, images.mu) for vectors in fused]
            halves[name] = _by_turns(mixed, captions, bank)
    draws = np.random.default_rng(seed).integers(len(images), size=(RESAMPLES, len(images)))  # [b, n]
    return {
        name: Fused(
            recall=Recall.of(own),
            gain=gain_over(own, ranks[BASELINE], draws),
            itself=itself[name],
            half_with=Recall.of(halves[name][:, has]) if name in halves else None,
            half_without=Recall.of(halves[name][:, ~has]) if name in halves and not has.all() else None,
        )
        for name, own in ranks.items()
    }


def gain_over(ranks: NDArray[np.int64], baseline: NDArray[np.int64], draws: NDArray[np.int64]) -> Gain:
    """Ranks `[c, n]` against those of another way; photos are drawn `[b, n]` with all their captions as one."""
    gains = 100 * ((ranks <= 1).mean(0) - (baseline <= 1).mean(0))  # [n]
    low, high = np.quantile(gains[draws].mean(1), (0.025, 0.975))
    return Gain(float(gains.mean()), float(low), float(high))


def as_indexed(images: Posterior, captions: Sequence[Posterior]) -> NDArray[np.floating]:
    """The vectors of captioned photos as `mmsearch index` makes them (`indexer/ingest/fusion.py`), `[n, d]`."""
    mu, logvar = (np.stack([getattr(one, part) for one in captions], axis=1) for part in ("mu", "logvar"))  # [n, c, d]
    experts = [caption_expert(images[i : i + 1], Posterior(mu[i], logvar[i])) for i in range(len(images))]
    return product_of_experts([images, joined(experts)]).mu


def pooled(captions: Sequence[Posterior]) -> Posterior:
    """Captions as one expert, the logarithmic opinion pool with equal weights `[n, d]`.

    Genest and Zidek 1986, https://doi.org/10.1214/ss/1177013825.
    """
    precisions = np.stack([np.exp(-one.logvar.astype(np.float64)) for one in captions])  # [c, n, d]
    mu = (precisions * np.stack([one.mu for one in captions])).mean(0) / precisions.mean(0)
    return Posterior(mu.astype(np.float32), -np.log(precisions.mean(0)).astype(np.float32))


def _equal(images: Posterior, captions: Sequence[Posterior]) -> list[Posterior]:
    """The captions' means as long as their photo's: the contrast is of directions, and leaves lengths to chance."""
    return [replace(one, mu=_of_length(one.mu, images.mu).astype(np.float32)) for one in captions]


def _of_length(vectors: NDArray[np.floating], like: NDArray[np.floating]) -> Float64Array:
    return np.asarray(unit_rows(vectors) * np.linalg.norm(like.astype(np.float64), axis=1, keepdims=True))


# the photos' posteriors [n, d] and those of their captions, each [n, d] -> search vectors [n, d]
FUSIONS: Mapping[str, Fusion] = {
    "captions_alone": lambda images, captions: np.asarray(sum(unit_rows(one.mu) for one in captions)),
    BASELINE: lambda images, captions: np.asarray(sum((unit_rows(one.mu) for one in captions), unit_rows(images.mu))),
    "average_of_means": lambda images, captions: np.asarray(sum((one.mu for one in captions), images.mu)),
    "product_of_pooled": lambda images, captions: product_of_experts([images, pooled(captions)]).mu,
    "product": lambda images, captions: product_of_experts([images, *captions]).mu,
    "product_of_pooled_equal_lengths": lambda images, captions: (
        product_of_experts([images, pooled(_equal(images, captions))]).mu
    ),
    "as_indexed": as_indexed,
}
WITHOUT_PHOTO = ("captions_alone",)


def _ranks(
    vectors: NDArray[np.floating], asking: Sequence[Posterior], bank: QueryBank | None = None
) -> NDArray[np.int64]:
    """Rank of each photo `[c, n]` for each of its asking captions."""
    own = np.arange(len(vectors))[:, None]
    hubness = None if bank is None else bank.hubness(np.asarray(vectors, np.float32))
    return np.stack([best_ranks(one.mu, vectors, own, hubness) for one in asking])


def _by_turns(
    libraries: Sequence[NDArray[np.floating]], captions: Sequence[Posterior], bank: QueryBank | None
) -> NDArray[np.int64]:
    """Rank of each photo `[c, n]` in the library that each caption in turn asks."""
    return np.stack([_ranks(vectors, [asks], bank)[0] for vectors, asks in zip(libraries, captions, strict=True)])


def _itself(images: Posterior, libraries: Sequence[NDArray[np.floating]]) -> float:
    return float(np.mean([100 * np.mean(_ranks(vectors, [images]) <= 1) for vectors in libraries]))


def _wins(ways: Mapping[str, Fused]) -> bool:
    others = [way.recall.r1 for name, way in ways.items() if name not in (*WITHOUT_PHOTO, "as_indexed")]
    return ways["as_indexed"].recall.r1 >= max(others)
