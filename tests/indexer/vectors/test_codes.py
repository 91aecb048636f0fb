"""Vectors as bytes, products in slices, the nearest of many centroids: the arithmetic below large index files."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.vectors import guide
from indexer.vectors.base import normalised
from indexer.vectors.best import products
from indexer.vectors.codes import STEPS, Scale
from indexer.vectors.guide import Guide
from tests.bench.synthetic import World

WORLD = World.of(64, clusters=200)


def photos(count: int, seed: int = 0) -> np.ndarray:
    return normalised(WORLD.photos(np.random.default_rng(seed), count), 64)


def test_a_byte_is_within_half_a_step_and_codes_stay_what_they_are() -> None:
    vectors = photos(3000)
    scale = Scale.fitted([vectors[:1000], vectors[1000:]])
    codes = scale.encode(vectors)
    decoded = scale.decode(codes)
    assert (np.abs(decoded - vectors) <= scale.width / STEPS / 2 + 1e-6).all()
    np.testing.assert_array_equal(scale.encode(decoded), codes)
    queries = photos(70, seed=1)
    for count in (1, 70):  # the short way and the one in larger slices
        np.testing.assert_allclose(scale.scores(queries[:count], codes), queries[:count] @ decoded.T, atol=1e-5)


def test_what_lies_outside_the_range_becomes_its_edge() -> None:
    scale = Scale.fitted([np.array([[-1.0, 0.0], [1.0, 0.0]], np.float32)])  # the second dimension has no width
    codes = scale.encode(np.array([[-9, -9], [9, 9], [0, 0]], np.float32))
    assert codes[:2].tolist() == [[0, 0], [255, 255]]
    np.testing.assert_allclose(scale.decode(codes[2:]), [[0, 0]], atol=0.01)


def test_no_score_is_off_by_more_than_the_doubt_and_half_of_them_not_by_a_tenth() -> None:
    vectors, queries = photos(20_000), photos(20, seed=1)
    scale = Scale.fitted([vectors])
    errors = np.abs(scale.scores(queries, scale.encode(vectors)) - queries @ vectors.T)
    doubt = scale.doubt(queries)
    assert errors.max() <= doubt / np.sqrt(2)  # the doubt is of the difference of two
    assert np.median(errors) >= 0.03 * doubt  # and no idle promise
    assert scale.doubt(queries[:0]) == 0


@pytest.mark.parametrize(("asked", "rows"), [(1, 1), (1, 5000), (3, 700), (200, 900), (300, 4000), (0, 9), (4, 0)])
def test_products_in_slices_are_products(asked: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((asked, 64)).astype(np.float32)
    vectors = rng.standard_normal((rows, 64)).astype(np.float32)
    np.testing.assert_allclose(products(queries, vectors), queries @ vectors.T, atol=1e-4)


def test_a_guide_to_few_centroids_is_exact() -> None:
    centroids, vectors = photos(50, seed=2), photos(500)
    np.testing.assert_array_equal(Guide.to(centroids).nearest(vectors), np.argmax(vectors @ centroids.T, axis=1))
    assert Guide.to(centroids).nearest(vectors[:0]).shape == (0,)


def test_a_guide_to_many_is_nearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide, "FEW", 100)
    centroids, vectors = photos(900, seed=2), photos(4000)
    led = Guide.to(centroids)
    assert led.near.shape == (30, 225)
    found, nearest = led.nearest(vectors), np.argmax(vectors @ centroids.T, axis=1)
    assert (found == nearest).mean() > 0.85
    loss = np.einsum("nd,nd->n", vectors, centroids[nearest] - centroids[found])
    assert loss.mean() < 0.02
