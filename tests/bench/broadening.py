"""Do labelled photos help to name what was never trained on, and what do they cost on sentences?

    python -m tests.bench.broadening --recipe mmsearch/training/default.toml

Heads alone on features of the untouched trunks (`heads_only.py`), several seeds each: on photos with sentences only;
with the recipe's labelled sets too; with those at other shares; and with two ways to have labels without photos, both
from the trunk's own ImageNet classifier. `directions`: a row of the classifier points to its class, so that a photo
moved along it stands for the class's name. `predictions`: what the classifier is sure of is one more caption of a
training photo. The held-out names take part in none of it. Out: recall on the validation photos, and how often a photo
of a held-out class is named right among all names of ImageNet: of ImageNet's own photos, and of all photos that
training leaves out of the labelled sets because of their names, which are five times as many.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmsearch.data.datasets import read_dataset, same_name
from mmsearch.evaluation.recall import best_ranks
from mmsearch.evaluation.zero_shot import TEMPLATES
from mmsearch.inference.preprocess import square
from mmsearch.training.corpus import read_corpus
from mmsearch.training.pretrained_init import _find
from mmsearch.training.recipe import Recipe, load_recipe
from tests.bench.common import ROOT, SHARED_PHOTOS, machine, table
from tests.bench.heads_only import Featured, Heads, Trunks, contrast_alone, train_heads

LABELS = ("things", "everyday", "imagenet_1_per_class")
IMAGENET = SHARED_PHOTOS / "imagenet_1_per_class"
HELD_OUT = ROOT / "mmsearch" / "training" / "held_out_classes.txt"
STEP = 13.0  # how far photos of a class lie along its row, in units of the features' spread; over 899 photos
SURE = 0.5  # of the classifier's probability


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    without: tuple[str, ...] = ()
    shares: float = 1.0
    extra: str = ""  # `directions` or `predictions`


VARIANTS = (
    Variant("sentences only", without=LABELS),
    Variant("and labels, as in the recipe"),
    Variant("and labels, with directions", extra="directions"),
    Variant("and labels, with predictions", extra="predictions"),
    Variant("and labels, half the shares", shares=0.5),
    Variant("and labels, every photo each epoch", shares=3.0),
    Variant("and things alone", without=LABELS[1:]),
    Variant("and everyday alone", without=(LABELS[0], LABELS[2])),
    Variant("and imagenet alone", without=LABELS[:2]),
    Variant("sentences and directions", without=LABELS, extra="directions"),
)


@dataclass(frozen=True)
class Names:
    """ImageNet's names, the photos of the held-out ones, and the trunk's classifier."""

    photos: Tensor  # [held-out photos, 1280], ImageNet's first
    own: tuple[tuple[int, ...], ...]  # [held-out photos] the rows of each one's names
    imagenet: int  # how many are ImageNet's
    texts: Tensor  # [templates, names, 384]
    distinct: tuple[str, ...]
    held_out: frozenset[str]
    classes: tuple[str, ...]  # [1000] in the classifier's order
    classifier: Tensor  # [1000, 1280]
    bias: Tensor  # [1000]

    @classmethod
    def load(cls, recipe: Recipe, trunks: Trunks) -> Names:
        examples = sorted(read_dataset(IMAGENET), key=lambda e: e.image.name)  # by WordNet's numbers, as the classifier
        held_out = frozenset(same_name(line) for line in HELD_OUT.read_text(encoding="utf-8").splitlines())
        classes = tuple(same_name(e.captions[0]) for e in examples)
        distinct = tuple(dict.fromkeys(classes))
        others = [e for name in LABELS[:2] for e in read_dataset(SHARED_PHOTOS / name)]
        asked = [e for e in (*examples, *others) if any(same_name(c) in held_out for c in e.captions)]
        squares = [square(Image.open(e.image), trunks.side_px) for e in asked]
        spelled = {same_name(e.captions[0]): e.captions[0].replace("_", " ") for e in examples}
        sentences = [t.replace("{}", spelled[name]) for t in TEMPLATES for name in distinct]
        state = torch.load(_find(recipe.model.image_init, "*.pth"), map_location="cpu", weights_only=True)
        return cls(
            photos=trunks.photos(np.stack(squares)),
            own=tuple(
                tuple(distinct.index(same_name(c)) for c in e.captions if same_name(c) in held_out) for e in asked
            ),
            imagenet=sum(e in examples for e in asked),
            texts=trunks.strings(sentences).view(len(TEMPLATES), len(distinct), -1),
            distinct=distinct,
            held_out=held_out,
            classes=classes,
            classifier=state["_fc.weight"],
            bias=state["_fc.bias"],
        )

    def zero_shot(self, heads: Heads) -> tuple[float, float, float, float]:
        """Top-1 and top-5, percent, as `mmsearch eval --zero-shot` counts them: of ImageNet's photos, of all."""
        total: NDArray[np.float64] = np.zeros(1)
        for texts in self.texts:
            means = heads.strings(texts).astype(np.float64)
            total = total + means / np.linalg.norm(means, axis=1, keepdims=True)
        ranks = best_ranks(heads.photos(self.photos), total, self.own)
        first = ranks[: self.imagenet]
        top1, top5, all1, all5 = (100 * float(np.mean(r <= k)) for r in (first, ranks) for k in (1, 5))
        return top1, top5, all1, all5

    def allowed(self) -> list[int]:
        """The classes whose names are not held out."""
        return [i for i, name in enumerate(self.classes) if name not in self.held_out]

    def text(self, rows: list[int], rng: np.random.Generator) -> Tensor:
        """Features of the names of classes, each in a template drawn at random `[n, 384]`."""
        names = [self.distinct.index(self.classes[row]) for row in rows]
        return self.texts[torch.from_numpy(rng.integers(len(TEMPLATES), size=len(rows))), torch.tensor(names)]


def directions(names: Names, data: Featured, copies: int, rng: np.random.Generator) -> Featured:
    """Training photos moved from their own class to another along the classifier's rows, each with the new name."""
    mean, spread = data.images[: data.corpus.train].mean(0), data.images[: data.corpus.train].std(0).clamp_min(1e-3)
    rows = (names.classifier - names.classifier.mean(0)) * spread
    rows = rows / rows.norm(dim=1, keepdim=True)  # [1000, 1280] of length one among standardised features
    wanted = names.allowed() * copies
    drawn = torch.from_numpy(rng.integers(data.corpus.train, size=len(wanted)))
    photos = (data.images[drawn] - mean) / spread
    own = rows[(data.images[drawn] @ names.classifier.T + names.bias).argmax(1)]
    bare = photos - (photos * own).sum(1, keepdim=True) * own  # what is left of a photo without its own class
    moved = (bare + STEP * rows[wanted]) * spread + mean
    labels = [names.classes[row] for row in wanted]
    return data.with_labels(labels, moved.clamp_min(0.0), names.text(wanted, rng), share=1 / copies)


def predictions(names: Names, data: Featured, rng: np.random.Generator) -> Featured:
    """Training photos that the classifier is sure of, once more with the class's name."""
    photos = data.images[: data.corpus.train]
    sure, row = (photos @ names.classifier.T + names.bias).softmax(1).max(1)
    allowed = torch.zeros(len(names.classes), dtype=torch.bool)
    allowed[names.allowed()] = True
    chosen = torch.nonzero((sure > SURE) & allowed[row]).flatten()
    rows = row[chosen].tolist()
    return data.with_labels([names.classes[r] for r in rows], photos[chosen], names.text(rows, rng), share=0.5)


def prepared(variant: Variant, names: Names, data: Featured, seed: int) -> Featured:
    rng, kept = np.random.default_rng((seed, 7)), data.without(variant.without, variant.shares)
    if variant.extra == "directions":
        return directions(names, kept, 4, rng)
    return predictions(names, kept, rng) if variant.extra == "predictions" else kept


def main(recipe_path: Path, seeds: int, epochs: int, chosen: list[int]) -> None:
    recipe = contrast_alone(load_recipe(recipe_path), epochs)
    trunks = Trunks.load(recipe)
    data, names = Featured.load(recipe, read_corpus(recipe), trunks), Names.load(recipe, trunks)
    found: dict[str, list[list[float]]] = {VARIANTS[i].name: [] for i in chosen}
    for seed in range(seeds):
        for variant in (VARIANTS[i] for i in chosen):
            heads = train_heads(recipe, prepared(variant, names, data, seed), seed)
            v = heads.validation
            t2i, i2t = v.text_to_image, v.image_to_text
            found[variant.name].append([t2i.r1, t2i.r10, i2t.r1, i2t.r10, v.mean_recall, *names.zero_shot(heads)])
            print(variant.name, seed, " ".join(f"{x:.2f}" for x in found[variant.name][-1]), flush=True)
    recalls = ("t2i R@1", "R@10", "i2t R@1", "R@10", "mean of six")
    rows: list[tuple[str, ...]] = [("heads trained on", *recalls, "top-1", "top-5", "all top-1", "top-5")]
    for name, values in found.items():
        spread = np.std(values, 0, ddof=1) if seeds > 1 else np.zeros(len(values[0]))
        rows.append((name, *(f"{m:.1f} ± {s:.1f}" for m, s in zip(np.mean(values, 0), spread, strict=True))))
    print(f"\n{table(rows)}")
    print(f"{seeds} seeds, mean ± standard deviation; {epochs} epochs of heads, contrast alone")
    print(f"held-out classes: {names.imagenet} ImageNet photos, {len(names.own)} in all; {len(names.distinct)} names")
    print(machine("torch"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What labelled photos give and cost.")
    parser.add_argument("--recipe", type=Path, default=ROOT / "mmsearch" / "training" / "default.toml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rows", type=int, nargs="*", default=list(range(len(VARIANTS))), help="rows of the table")
    options = parser.parse_args()
    main(options.recipe, options.seeds, options.epochs, options.rows)
