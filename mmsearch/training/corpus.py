"""All data sets of a run as one ordered list of photos with captions.

In: a recipe. Out: a `Corpus`: sentences first, then labels, then the validation photos, so that a cache over the
photos can stop early for the views that only the first kinds need. Next: `views.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import DataError
from mmsearch.training.datasets import Example, read_dataset
from mmsearch.training.recipe import DataSource, Recipe


@dataclass(frozen=True)
class Corpus:
    """Photos in a fixed order: `sentences` of one kind, then labels up to `train`, then validation.

    Attributes:
        photos: `[n]` paths.
        captions: `[n]` tuples.
        shares: part of an epoch in which each training photo is seen, float `[train]`.
        sentences: how many photos carry sentences; they come first.
        train: how many photos are trained on.
    """

    photos: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]
    shares: NDArray[np.float64]
    sentences: int
    train: int

    def epoch(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The photos of one epoch in random order: those with sentences and those with labels."""
        seen = np.flatnonzero(rng.random(self.train) < self.shares)
        rng.shuffle(seen)
        return seen[seen < self.sentences], seen[seen >= self.sentences]


def read_corpus(recipe: Recipe) -> Corpus:
    """Read every data set of the recipe.

    Raises:
        DataError: a data set that cannot be read, or a validation photo that is also trained on.
    """
    parts: dict[str, list[tuple[Example, float]]] = {"sentences": [], "labels": []}
    for source in recipe.data:
        parts[source.kind] += [(example, source.share) for example in _examples(source, recipe.train_split)]
    train = parts["sentences"] + parts["labels"]
    validation = read_dataset(Path(recipe.validation), recipe.validation_split)
    both = {e.image.resolve() for e, _ in train} & {e.image.resolve() for e in validation}
    if both:
        raise DataError(
            f"{len(both)} photos are in training and validation, the first {min(both)}; separate the splits"
        )
    examples = [e for e, _ in train] + validation
    return Corpus(
        photos=tuple(e.image for e in examples),
        captions=tuple(e.captions for e in examples),
        shares=np.array([share for _, share in train]),
        sentences=len(parts["sentences"]),
        train=len(train),
    )


def _examples(source: DataSource, split: str) -> list[Example]:
    examples = read_dataset(Path(source.path), split)
    if source.exclude is None:
        return examples
    excluded = {_plain(line) for line in Path(source.exclude).read_text(encoding="utf-8").splitlines() if line.strip()}
    return [e for e in examples if not any(_plain(caption) in excluded for caption in e.captions)]


def _plain(caption: str) -> str:
    return " ".join(caption.lower().replace("_", " ").split())
