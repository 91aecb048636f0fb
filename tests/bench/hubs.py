"""What a bank of queries is worth, by how sharp it is, how many clusters it has, what is in it, how deep one looks.

    python -m tests.bench.hubs
    python -m tests.bench.hubs --model runs/default/shipped --pairs 20000

Recall on Flickr8k `val` by the cosine less the hubness (`search/query_bank.py`), for banks of training pairs that
differ in one thing each from the one that ships. Names: photos of the classes that were held out of training, among
all names of ImageNet. The last table puts the photos of the bank among those of `val`, as a larger library, and looks
for each caption's photo among only the nearest by cosine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from indexer.search.query_bank import QueryBank
from indexer.vectors.protocol import normalised
from indexer.vectors.rows import Int64Array
from mmsearch.data.datasets import read_dataset, same_name
from mmsearch.evaluation.recall import best_ranks, retrieval
from mmsearch.evaluation.subject import in_batches
from mmsearch.evaluation.zero_shot import TEMPLATES, name_vectors
from mmsearch.inference.load_model import load_model
from mmsearch.training.calibration_queries import bank, draw
from mmsearch.training.corpus import read_corpus
from mmsearch.training.recipe import Export, load_recipe
from tests.bench.common import DEFAULT_MODEL, ROOT, machine, table

RECIPE = ROOT / "mmsearch" / "training" / "default.toml"
NAMES = ROOT.parent / "shared" / "photos" / "imagenet_1_per_class"
HELD_OUT = ROOT / "mmsearch" / "training" / "held_out_classes.txt"
SHARPNESS, CLUSTERS = Export.sharpness, Export.clusters
DEPTHS = (16, 32, 64, 128, 256)


class Measured:
    """Everything encoded once."""

    def __init__(self, model: str, pairs: int) -> None:
        encoder, recipe = load_model(model, "cpu"), load_recipe(RECIPE)
        corpus = read_corpus(recipe)
        val = read_dataset(Path(recipe.validation), recipe.validation_split)
        captions = [caption for example in val for caption in example.captions]
        self.owner = np.repeat(np.arange(len(val)), [len(example.captions) for example in val])
        self.images = in_batches(encoder.embed_images, [example.image for example in val], "photos").mu
        self.texts = in_batches(encoder.embed_texts, captions, "captions").mu
        photos, said = draw(corpus, pairs)
        labelled = frozenset(corpus.photos[corpus.sentences : corpus.train])
        self.labels = np.array([photo in labelled for photo in photos])
        self.bank_images = in_batches(encoder.embed_images, photos, "photos of the bank").mu
        self.bank_texts = in_batches(encoder.embed_texts, said, "captions of the bank").mu
        held_out = {same_name(line) for line in HELD_OUT.read_text().splitlines()}
        named = read_dataset(NAMES)
        distinct = {same_name(one): one.replace("_", " ") for example in named for one in example.captions}
        rows = {name: row for row, name in enumerate(distinct)}
        asked = [example for example in named if all(same_name(one) in held_out for one in example.captions)]
        self.own = [[rows[same_name(one)] for one in example.captions] for example in asked]
        self.asked = in_batches(encoder.embed_images, [example.image for example in asked], "photos to name").mu
        self.names = np.asarray(name_vectors(encoder, list(distinct.values()), TEMPLATES), np.float32)

    def banks(self, sharpness: float, clusters: int, rows: Int64Array | slice = slice(None)) -> list[QueryBank]:
        texts, images = self.bank_texts[rows], self.bank_images[rows]
        return [bank("text", texts, images, clusters, sharpness), bank("image", images, texts, clusters, sharpness)]

    def row(self, name: str, banks: list[QueryBank]) -> tuple[str, ...]:
        of_images, of_texts, of_names = None, None, None
        if banks:
            of_images, of_texts = banks[0].hubness(self.images), banks[1].hubness(self.texts)
            of_names = banks[1].hubness(self.names)
        found = retrieval(self.images, self.texts, self.owner, of_images, of_texts)
        ranks = best_ranks(self.asked, self.names, self.own, of_names)
        cells = [f"{way.r1:.1f} / {way.r10:.1f}" for way in (found.text_to_image, found.image_to_text)]
        named = f"{100 * np.mean(ranks <= 1):.1f} / {100 * np.mean(ranks <= 5):.1f}"
        return (name, *cells, f"{found.mean_recall:.2f}", named)

    def by_depth(self, of_text: QueryBank) -> list[tuple[str, ...]]:
        gallery = normalised(np.concatenate([self.images, self.bank_images]), self.images.shape[1])
        hubness = of_text.hubness(gallery)
        cosines = normalised(self.texts, self.texts.shape[1]) @ gallery.T  # [q, n]
        own = np.arange(len(self.texts))
        rows: list[tuple[str, ...]] = [("looked at", "R@1", "R@10")]
        for depth in (0, *DEPTHS, len(gallery)):
            scores = cosines - hubness if depth else cosines
            if 0 < depth < len(gallery):
                far = np.argpartition(-cosines, depth, axis=1)[:, depth:]
                scores = scores.copy()
                np.put_along_axis(scores, far, -np.inf, axis=1)
            ranks = (scores > scores[own, self.owner][:, None]).sum(axis=1)
            ranks[np.isinf(scores[own, self.owner])] = len(gallery)
            name = "by cosine alone" if not depth else "everything" if depth == len(gallery) else f"the nearest {depth}"
            rows.append((name, *(f"{100 * np.mean(ranks < k):.1f}" for k in (1, 10))))
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Banks of queries.")
    parser.add_argument("--model", default=str(DEFAULT_MODEL))
    parser.add_argument("--pairs", type=int, default=8192)
    given = parser.parse_args()
    measured = Measured(given.model, given.pairs)
    titles = ("bank", "text to image R@1 / R@10", "image to text", "mean of six", "held-out names top-1 / top-5")
    rows: list[tuple[str, ...]] = [titles]
    rows.append(measured.row("none: by cosine alone", []))
    for sharpness in (5.0, 10.0, 12.0, SHARPNESS, 20.0, 30.0):
        rows.append(measured.row(f"sharpness {sharpness:g}", measured.banks(sharpness, CLUSTERS)))
    for clusters in (256, 1024, 2048, given.pairs):
        rows.append(measured.row(f"{clusters} clusters", measured.banks(SHARPNESS, clusters)))
    rows.append(measured.row("sentences alone", measured.banks(SHARPNESS, CLUSTERS, np.flatnonzero(~measured.labels))))
    rows.append(measured.row("labels alone", measured.banks(SHARPNESS, CLUSTERS, np.flatnonzero(measured.labels))))
    print(table(rows))
    print(f"\n{given.pairs} pairs; where nothing else is said {CLUSTERS} clusters, sharpness {SHARPNESS:g}\n")
    print(table(measured.by_depth(measured.banks(SHARPNESS, CLUSTERS)[0])))
    print(f"\n{len(measured.images) + len(measured.bank_images)} photos\n{machine('numpy', 'onnxruntime')}")


if __name__ == "__main__":
    main()
