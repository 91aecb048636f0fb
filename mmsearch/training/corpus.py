"""All data sets of a run as one ordered list of photos with captions.

In: a recipe. Out: a `Corpus`: sentences first, then labels, then the validation photos, so that a cache over the
photos can stop early for the views that only the first kinds need. Next: `stages.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsearch.data.datasets import Example, read_dataset, read_names, same_name
from mmsearch.data.near_duplicates import near_duplicates
from mmsearch.errors import DataError
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

    @property
    def training_captions(self) -> list[str]:
        """All captions of the photos trained on."""
        return [caption for captions in self.captions[: self.train] for caption in captions]

    def epoch(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The photos of one epoch in random order: those with sentences and those with labels."""
        seen = np.flatnonzero(rng.random(self.train) < self.shares)
        rng.shuffle(seen)
        return seen[seen < self.sentences], seen[seen >= self.sentences]


def read_corpus(recipe: Recipe) -> Corpus:
    """Read every data set of the recipe.

    Raises:
        DataError: a data set that cannot be read, photos that cannot be decoded, fewer than two photos to train on or
            to validate with, or a validation photo that is also trained on, under whatever name.
    """
    parts: dict[str, list[tuple[Example, float]]] = {"sentences": [], "labels": []}
    for source in recipe.data:
        parts[source.kind] += [(example, source.share) for example in _examples(source, recipe.train_split)]
    train = parts["sentences"] + parts["labels"]
    validation = read_dataset(Path(recipe.validation), recipe.validation_split)
    _refuse_too_few(recipe, parts, len(validation))
    _refuse_near_duplicates([e.image for e, _ in train], [e.image for e in validation], Path(recipe.cache))
    examples = [e for e, _ in train] + validation
    return Corpus(
        photos=tuple(e.image for e in examples),
        captions=tuple(e.captions for e in examples),
        shares=np.array([share for _, share in train]),
        sentences=len(parts["sentences"]),
        train=len(train),
    )


def _refuse_too_few(recipe: Recipe, parts: dict[str, list[tuple[Example, float]]], validation: int) -> None:
    """A contrast needs another photo of the same kind in the batch; a recall needs another photo to be wrong about."""
    if max(sum(share for _, share in part) for part in parts.values()) < 2:
        found = " and ".join(f"{len(part)} with {kind}" for kind, part in parts.items())
        paths = ", ".join(source.path for source in recipe.data)
        raise DataError(
            f"too few photos to train on in {paths}, split '{recipe.train_split}': {found}, by their share less than 2 "
            "an epoch; add photos or raise the share"
        )
    if validation < 2:
        raise DataError(
            f"{recipe.validation} has {validation} photo in split '{recipe.validation_split}'; at least 2 are needed "
            "to tell a right answer from a wrong one"
        )


def _refuse_near_duplicates(train: list[Path], validation: list[Path], cache: Path) -> None:
    both = {image.resolve() for image in train} & {image.resolve() for image in validation}
    if both:
        raise DataError(
            f"{len(both)} photos are in training and validation, the first {min(both)}; separate the splits"
        )
    found = near_duplicates(train, validation, cache)
    if found:
        photo, copy = found[0]
        raise DataError(
            f"{len(found)} of {len(validation)} validation photos are trained on under another name, the first {copy}, "
            f"a copy of {photo}; put both into one split or remove one"
        )


def _examples(source: DataSource, split: str) -> list[Example]:
    examples = read_dataset(Path(source.path), split)
    if source.exclude is None:
        return examples
    excluded = read_names(Path(source.exclude))
    return [e for e in examples if not any(same_name(caption) in excluded for caption in e.captions)]
