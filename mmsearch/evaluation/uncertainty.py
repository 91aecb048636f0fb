"""`mmsearch eval --uncertainty`: does the variance know when the model does not know?

    captions cut short, photos blurred -> does the variance grow?
    every caption asks for its photo -> do variance, top cosine and margin tell the wrong first hits from the right?

In: a data set with captions and a model. Out: an `UncertaintyReport`. Entropy stands for the variance: `1/2 sum_d log(2
pi e sigma_d^2)`, nats. Next: `signals.py`, the signals of a search and the statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from PIL import Image, ImageFilter

from indexer.base.types import Posterior
from mmsearch.errors import DataError
from mmsearch.evaluation.signals import Area, Float64Array, areas, entropy, hit_signals, spearman
from mmsearch.evaluation.subject import Embedder, Report, Subject, joined
from mmsearch.inference.pictures import to_image
from mmsearch.inference.preprocess import square

WORDS = (1, 2, 4, 8)
RADII_PX = (0, 2, 4, 8, 16)
PHOTOS_ALTERED = 200  # of the set, evenly: the spread of their mean is a tenth of what blurring does to it
_PHOTOS_AT_ONCE = 32
_NOISE = 64.0  # standard deviation, of 0..255


class PictureEmbedder(Embedder, Protocol):
    """What is measured: a model that also says how large it sees a picture."""

    @property
    def side_px(self) -> int:
        """Side of the square the model looks at, pixels."""


@dataclass(frozen=True)
class Spread:
    """How wide posteriors are, mean over items.

    Attributes:
        mean_logvar: mean over the dimensions of the log variance.
        total_variance: trace of the covariance.
        entropy: nats.
    """

    mean_logvar: float
    total_variance: float
    entropy: float


@dataclass(frozen=True)
class Growth:
    """What the variance does as something is taken away.

    Attributes:
        levels: from everything there to the least.
        spearman: rank correlation of the level and its mean entropy: 1 where it grows at every step.
        spearman_items: the same within one item, mean over items.
        rises: percent of the items that are less sure at the last level than at the first.
        items: how many.
    """

    levels: Mapping[str, Spread]
    spearman: float
    spearman_items: float
    rises: float
    items: int


@dataclass(frozen=True)
class UncertaintyReport(Report):
    """What `mmsearch eval --uncertainty` found.

    Attributes:
        words: the first caption of each photo, whole and cut to its first words.
        blur: photos under a Gaussian blur, by its radius in pixels of the square the model sees.
        altered: the same photos without colour, under noise, and as one flat colour.
        wrong: percent of the captions whose first hit is another photo.
        errors: area under the ROC curve of telling those, by signal; combinations are logistic regressions fitted on
            the captions of one half of the photos and measured on the other, both ways.
        variance_adds: area with the variance above that without, `to_cosine` and `to_cosine_and_margin`.
    """

    model: str
    fingerprint: str
    data: str
    split: str
    images: int
    texts: int
    words: Growth
    blur: Growth
    altered: Mapping[str, Spread]
    wrong: float
    errors: Mapping[str, Area | None]
    variance_adds: Mapping[str, Area | None]
    seed: int = 0
    seconds: float = 0.0


def evaluate_uncertainty(subject: Subject, *, seed: int = 0) -> UncertaintyReport:
    """Measure what a model's variances are worth.

    Args:
        subject: model and examples; the model says how large it sees a picture (`PictureEmbedder`).
        seed: of the noise and the bootstrap.

    Raises:
        DataError: fewer than 4 photos.
        DecodeError: a picture that cannot be read.
    """
    model, examples = cast(PictureEmbedder, subject.model), subject.examples
    if len(examples) < 4:
        raise DataError(f"{len(examples)} photos; telling right from wrong needs at least 4, better hundreds")
    photos, texts = subject.pictures(), subject.texts(subject.captions)
    words = _cut(subject)
    chosen = np.unique(np.linspace(0, len(examples) - 1, min(PHOTOS_ALTERED, len(examples))).astype(int))
    blurred, altered = _alter(model, [examples[i].image for i in chosen], seed)
    signals, wrong = hit_signals(photos, texts, subject.owner)
    errors, adds = areas(signals, wrong, subject.owner, seed=seed)
    return UncertaintyReport(
        **subject.facts,
        images=len(examples),
        texts=len(subject.captions),
        words=words,
        blur=growth(blurred),
        altered={name: spread(posterior) for name, posterior in altered.items()},
        wrong=100 * float(wrong.mean()),
        errors=errors,
        variance_adds=adds,
        seed=seed,
    )


def spread(posterior: Posterior) -> Spread:
    """The widths of posteriors `[n, d]`, mean over n."""
    logvar = posterior.logvar.astype(np.float64)
    return Spread(float(logvar.mean()), float(np.exp(logvar).sum(1).mean()), float(entropy(posterior).mean()))


def growth(levels: Mapping[str, Posterior], lost: Float64Array | None = None) -> Growth:
    """Does the entropy grow from level to level?

    Args:
        levels: posteriors of the same items at each level, each `[n, d]`, from everything there to the least.
        lost: how much of each item is gone at each level `[levels, n]`; the number of the level where None.
    """
    entropies = np.stack([entropy(posterior) for posterior in levels.values()])  # [l, n]
    steps = np.arange(len(levels), dtype=np.float64)
    given = np.repeat(steps[:, None], entropies.shape[1], axis=1) if lost is None else lost
    within = [spearman(given[:, item], entropies[:, item]) for item in range(entropies.shape[1])]
    return Growth(
        levels={name: spread(posterior) for name, posterior in levels.items()},
        spearman=spearman(steps, entropies.mean(1)),
        spearman_items=float(np.mean(within)),
        rises=100 * float(np.mean(entropies[-1] > entropies[0])),
        items=entropies.shape[1],
    )


def _cut(subject: Subject) -> Growth:
    """First captions, whole and cut; what is lost is counted in a caption's own words: short ones lose nothing."""
    captions = [example.captions[0] for example in subject.examples]
    split = [caption.split() for caption in captions]
    texts = {"whole": captions}
    texts |= {str(count): [" ".join(words[:count]) for words in split] for count in reversed(WORDS)}
    kept = [[len(words) for words in split], *([min(n, len(words)) for words in split] for n in reversed(WORDS))]
    levels = {name: subject.texts(cut, f"captions, {name}") for name, cut in texts.items()}
    return growth(levels, -np.array(kept, np.float64))


def _alter(
    model: PictureEmbedder, paths: Sequence[Path], seed: int
) -> tuple[dict[str, Posterior], dict[str, Posterior]]:
    """Posteriors of photos under each blur, and under each other alteration; every photo is decoded once."""
    draw = np.random.default_rng(seed)
    ways: dict[str, Callable[[Image.Image], Image.Image]] = {
        str(radius): lambda image, radius=radius: image.filter(ImageFilter.GaussianBlur(radius))  # type: ignore[misc]
        for radius in RADII_PX
    }
    ways |= {"grey": lambda image: image.convert("L").convert("RGB"), "noise": lambda image: _noisy(image, draw)}
    ways["flat"] = lambda image: image.resize((1, 1), Image.Resampling.BOX).resize(image.size)
    parts: dict[str, list[Posterior]] = {name: [] for name in ways}
    for start in range(0, len(paths), _PHOTOS_AT_ONCE):
        squares = [
            Image.fromarray(square(to_image(path, model.side_px), model.side_px))
            for path in paths[start : start + _PHOTOS_AT_ONCE]
        ]
        for name, way in ways.items():
            parts[name].append(model.embed_images([way(image) for image in squares]))
    found = {name: joined(part) for name, part in parts.items()}
    return {str(radius): found.pop(str(radius)) for radius in RADII_PX}, found


def _noisy(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float64)
    return Image.fromarray((pixels + _NOISE * draw.standard_normal(pixels.shape)).clip(0, 255).astype(np.uint8))
