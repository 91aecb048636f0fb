"""Calibration queries against hubness (QB-Norm, https://arxiv.org/abs/2112.12777): a model ships its training pairs.

    training pairs, sampled as for an epoch -> vectors, by the model as it ships -> clusters -> queries.safetensors

Captions are the bank for searches by words, photos the one for searches by a picture. What a bank holds says what is
usual, so it must be as broad as what people ask: with sentences alone, names are found less well than with the labels
among them. In: a shipped folder, the corpus of its training. Out: one more file in it. Next:
`indexer/search/query_bank.py`.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from indexer.base.types import Float32Array, Modality
from indexer.search.query_bank import QueryBank
from indexer.vectors.protocol import normalised
from mmsearch.evaluation.subject import in_batches
from mmsearch.inference.load_model import load_model
from mmsearch.inference.query_bank import rounded, save_banks
from mmsearch.models.digest import seal
from mmsearch.training.corpus import Corpus
from mmsearch.training.recipe import Export

log = logging.getLogger(__name__)

ROUNDS = 8


def add_banks(folder: Path, corpus: Corpus, export: Export) -> None:
    """Write `queries.safetensors` into a model's folder and note it in `model.json`.

    Args:
        folder: a model that `load_model` takes.
        corpus: what it was trained with; its validation photos are left alone.
        export: how many pairs, how many clusters, how sharp.

    Raises:
        DecodeError: a photo that cannot be read.
    """
    model = load_model(folder)
    photos, captions = draw(corpus, export.queries)
    images = in_batches(model.embed_images, photos, "photos for the bank of queries").mu
    texts = in_batches(model.embed_texts, captions, "captions for the bank of queries").mu
    banks = (
        bank("text", texts, images, export.clusters, export.sharpness),
        bank("image", images, texts, export.clusters, export.sharpness),
    )
    save_banks(folder, banks)
    seal(folder)
    log.info("a bank of %d pairs in %d clusters", len(photos), len(banks[0].shares))


def draw(corpus: Corpus, pairs: int) -> tuple[list[Path], list[str]]:
    """Training photos, each as often as its share says, with one of their captions; the same ones every time."""
    rng = np.random.default_rng(0)
    count = min(pairs, int(np.count_nonzero(corpus.shares)))
    chosen = rng.choice(corpus.train, count, replace=False, p=corpus.shares / corpus.shares.sum())
    captions = [corpus.captions[one][rng.integers(len(corpus.captions[one]))] for one in chosen.tolist()]
    return [corpus.photos[one] for one in chosen.tolist()], captions


def bank(modality: Modality, queries: Float32Array, items: Float32Array, clusters: int, sharpness: float) -> QueryBank:
    """A bank of queries `[m, d]` of one modality, its level by items `[n, d]` of the other."""
    units = normalised(queries, queries.shape[1])
    centroids = spherical_k_means(units, min(clusters, len(units)))
    numbers = np.argmax(units @ centroids.T, axis=1)  # [m]
    sizes = np.bincount(numbers, minlength=len(centroids))
    sums = np.zeros_like(centroids)
    np.add.at(sums, numbers, units)
    centres = rounded(np.asarray(sums[sizes > 0] / sizes[sizes > 0, None], np.float32))  # as they are stored
    shares = (sizes[sizes > 0] / len(units)).astype(np.float32)
    plain = QueryBank(modality, centres, shares, sharpness)
    return QueryBank(modality, centres, shares, sharpness, level=float(plain.hubness(items).mean()))


def spherical_k_means(units: Float32Array, clusters: int) -> Float32Array:
    """Unit centroids `[c, d]` of unit vectors `[n, d]`, always the same (Dhillon & Modha 2001).

    https://doi.org/10.1023/A:1007612920971. By FAISS, with which the shipped bank was made, else by scikit-learn.
    """
    try:
        import faiss
    except ImportError:
        from sklearn.cluster import KMeans

        found = KMeans(clusters, n_init=1, max_iter=ROUNDS, random_state=0).fit(units).cluster_centers_
        return normalised(np.asarray(found, np.float32), units.shape[1])
    kmeans = faiss.Kmeans(units.shape[1], clusters, niter=ROUNDS, spherical=True, seed=1, min_points_per_centroid=1)
    kmeans.train(units)
    return np.asarray(kmeans.centroids, np.float32)
