"""Squash, crop or pad: how a photo that is not square should become the square that the model sees.

    python -m tests.bench.preprocessing

On photos with their own aspect whose texts the measured weights have not seen. `retrieval`: heads trained without
`coco_1500` on features of the untouched trunks (`heads_only.py`), recall of its photos and captions among all of them.
`naming`: the default model as it is, and photos of names that were held out of its training, among all of ImageNet's
names. Out: the mean of the six recalls, and top-1 and top-5, for all photos and by how far a photo is from square.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.data.datasets import Example, read_dataset, same_name
from mmsearch.evaluation.recall import best_ranks
from mmsearch.evaluation.zero_shot import TEMPLATES, name_vectors
from mmsearch.inference.load_model import Model, load_model
from mmsearch.inference.preprocess import square
from mmsearch.training.corpus import read_corpus
from mmsearch.training.recipe import load_recipe
from tests.bench.common import DEFAULT_MODEL, ROOT, SHARED_PHOTOS, machine, table
from tests.bench.heads_only import Featured, Trunks, contrast_alone, train_heads

Preprocess = Callable[[Image.Image, int], NDArray[np.uint8]]
UNSEEN = "coco_1500"
LABELS = ("imagenet_1_per_class", "things", "everyday")
HELD_OUT = ROOT / "mmsearch" / "training" / "held_out_classes.txt"
GREY = (127, 127, 127)  # zero to the trunk
KINDS = ("all", "near square", "about 4:3", "wider")
EDGES = (1.15, 1.45)  # of the longer side by the shorter


def cut(image: Image.Image, side_px: int, aspect: float) -> NDArray[np.uint8]:
    """The middle of the photo with its longer side at most `aspect` times the shorter, squashed."""
    width, height = image.size
    w, h = min(width, aspect * height), min(height, aspect * width)
    left, top = (width - w) / 2, (height - h) / 2
    return square(image, side_px, (left, top, left + w, top + h))


def pad(image: Image.Image, side_px: int) -> NDArray[np.uint8]:
    """The whole photo in its own aspect, grey beside it."""
    width, height = image.size
    scale = side_px / max(width, height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    whole = Image.new("RGB", (side_px, side_px), GREY)
    small = image.convert("RGB").resize((w, h), Image.Resampling.BICUBIC, reducing_gap=3.0)
    whole.paste(small, ((side_px - w) // 2, (side_px - h) // 2))
    return np.array(whole, dtype=np.uint8)


def aspect(image: Image.Image) -> float:
    """The longer side by the shorter."""
    return max(image.size) / min(image.size)


WAYS: dict[str, Preprocess] = {
    "squash": square,
    "centre crop": lambda image, side_px: cut(image, side_px, 1.0),
    "pad": pad,
    "crop halfway, squash the rest": lambda image, side_px: cut(image, side_px, aspect(image) ** 0.5),
    "crop to 4:3, squash the rest": lambda image, side_px: cut(image, side_px, 4 / 3),
}


def opened(examples: Sequence[Example]) -> list[Image.Image]:
    pictures = []
    for example in examples:
        with Image.open(example.image) as file:
            pictures.append(file.convert("RGB"))
    return pictures


def kinds(pictures: Sequence[Image.Image]) -> dict[str, NDArray[np.int64]]:
    """The rows of all photos, and of those of each kind of aspect."""
    place = np.digitize([aspect(p) for p in pictures], EDGES)
    return {KINDS[0]: np.arange(len(pictures)), **{KINDS[1 + i]: np.flatnonzero(place == i) for i in range(3)}}


def retrieval(recipe_path: Path, seeds: int, epochs: int, count: int) -> str:
    """Mean of the six recalls of unseen photos and their captions; a query competes with all of them."""
    recipe = contrast_alone(load_recipe(recipe_path), epochs)
    trunks, examples = Trunks.load(recipe), read_dataset(SHARED_PHOTOS / UNSEEN)
    examples = [examples[i] for i in sorted(np.random.default_rng(0).permutation(len(examples))[:count])]
    data = Featured.load(recipe, read_corpus(recipe), trunks).without([UNSEEN])
    pictures = opened(examples)
    photos = {n: trunks.photos(np.stack([way(p, trunks.side_px) for p in pictures])) for n, way in WAYS.items()}
    captions = trunks.strings([caption for e in examples for caption in e.captions])
    owner = np.array([i for i, e in enumerate(examples) for _ in e.captions])
    texts_of = [np.flatnonzero(owner == i) for i in range(len(examples))]
    found: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for seed in range(seeds):
        heads = train_heads(recipe, data, seed)
        texts = heads.strings(captions)
        for name, features in photos.items():
            images = heads.photos(features)
            to_image, to_text = best_ranks(texts, images, owner[:, None]), best_ranks(images, texts, texts_of)
            found[name].append(
                [_mean(to_image[np.isin(owner, rows)], to_text[rows]) for rows in kinds(pictures).values()]
            )
            print(name, seed, " ".join(f"{x:.2f}" for x in found[name][-1]), flush=True)
    rows: list[tuple[str, ...]] = [(f"mean of six, {UNSEEN}", *(f"{k} ({len(r)})" for k, r in kinds(pictures).items()))]
    base = np.array(found["squash"])
    for name, values in found.items():
        mean, spread = np.mean(values, 0), np.std(np.array(values) - base, 0, ddof=1) if seeds > 1 else np.zeros(4)
        over = mean - base.mean(0)
        plain = name == "squash"
        cells = [
            f"{m:.2f}" if plain else f"{m:.2f} ({o:+.2f} ± {s:.2f})" for m, o, s in zip(mean, over, spread, strict=True)
        ]
        rows.append((name, *cells))
    return f"{table(rows)}\n{seeds} seeds; in brackets the difference from squash, ± its standard deviation over seeds"


def _mean(to_image: NDArray[np.int64], to_text: NDArray[np.int64]) -> float:
    return 100 * float(np.mean([np.mean(ranks <= k) for ranks in (to_image, to_text) for k in (1, 5, 10)]))


def naming(model: Model, side_px: int) -> str:
    """Top-1 and top-5 of photos whose names no training has seen, among all names of ImageNet."""
    held_out = {same_name(line) for line in HELD_OUT.read_text(encoding="utf-8").splitlines()}
    sets = [read_dataset(SHARED_PHOTOS / name) for name in LABELS]
    asked = [e for examples in sets for e in examples if any(same_name(c) in held_out for c in e.captions)]
    distinct = {same_name(e.captions[0]): e.captions[0].replace("_", " ") for e in sets[0]}
    row = {name: i for i, name in enumerate(distinct)}
    own = [[row[same_name(c)] for c in e.captions if same_name(c) in held_out] for e in asked]
    names, pictures = name_vectors(model, list(distinct.values()), TEMPLATES), opened(asked)
    shown = kinds(pictures)
    rows: list[tuple[str, ...]] = [
        ("top-1 / top-5, held-out names", *(f"{kind} ({len(r)})" for kind, r in shown.items()))
    ]
    for name, way in WAYS.items():
        squares = np.stack([way(p, side_px) for p in pictures])
        means = np.concatenate([model.encode_images(squares[i : i + 32]).mu for i in range(0, len(squares), 32)])
        ranks = best_ranks(means, names, own)
        rows.append((name, *(f"{_at(ranks[r], 1)} / {_at(ranks[r], 5)}" for r in shown.values())))
    return f"{table(rows)}\n{len(asked)} photos of {', '.join(LABELS)}, {len(distinct)} names"


def _at(ranks: NDArray[np.int64], k: int) -> str:
    return f"{100 * float(np.mean(ranks <= k)):.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Squash, crop or pad.")
    parser.add_argument("--recipe", type=Path, default=ROOT / "mmsearch" / "training" / "default.toml")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="folder of a model, for naming")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the heads")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--count", type=int, default=1500, help="photos for retrieval")
    parser.add_argument("--only", choices=("naming", "retrieval"), help="one of the two")
    options = parser.parse_args()
    if options.only != "retrieval":
        loaded = load_model(options.model, "cpu")
        print(f"{naming(loaded, loaded.side_px)}\n", flush=True)
    if options.only != "naming":
        print(retrieval(options.recipe, options.seeds, options.epochs, options.count))
    print(machine("torch", "onnxruntime", "pillow"))
