"""Recall against hand-made cases and against an implementation that only sorts and looks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mmsearch.errors import DataError
from mmsearch.training.recall import Recall, best_ranks, recall, retrieval


def directions(*degrees: float) -> NDArray[np.float32]:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_ranks_by_hand() -> None:
    items = directions(0, 10, 20, 30)
    queries = 7 * directions(0, 0, 21, 40)  # length does not matter
    assert best_ranks(queries, items, [[0], [3], [1], [0, 3]]).tolist() == [1, 4, 3, 1]
    assert recall(queries, items, [[0], [3], [1], [0, 3]]) == Recall(50.0, 100.0, 100.0, 2.0)


def test_both_directions_by_hand() -> None:
    images = directions(0, 90, 180)
    texts = directions(1, 60, 91, 175, 10)  # text 1 belongs to image 0 and lies nearer to image 1
    result = retrieval(images, texts, [0, 0, 1, 2, 2])
    assert result.text_to_image == Recall(60.0, 100.0, 100.0, 1.0)  # ranks 1 2 1 1 3
    assert result.image_to_text == Recall(100.0, 100.0, 100.0, 1.0)  # the best of several captions counts
    assert result.mean_recall == pytest.approx((60 + 5 * 100) / 6)


def test_ties_count_against_us() -> None:
    """A model that maps everything to one point must look as bad as it is, whatever the order of the items."""
    rng = np.random.default_rng(0)
    point = rng.normal(size=(1, 384)).astype(np.float32)
    for own in (0, 57, 99):
        assert best_ranks(point, np.repeat(point, 100, axis=0), [[own]]).tolist() == [100]
    assert best_ranks(np.zeros((1, 3)), np.eye(3), [[0]]).tolist() == [3]
    assert best_ranks(point, np.repeat(point, 100, axis=0), [[3, 4, 5]]).tolist() == [98]


def brute_force(queries: NDArray[np.float64], items: NDArray[np.float64], own: list[list[int]]) -> list[int]:
    ranks = []
    for query, right in zip(queries, own, strict=True):
        cosine = [float(query @ item) / float(np.linalg.norm(query) * np.linalg.norm(item)) for item in items]
        order = sorted(range(len(items)), key=lambda i: -cosine[i])
        wrong_before = 0
        for item in order:
            if item in right:
                break
            wrong_before += 1
        ranks.append(wrong_before + 1)
    return ranks


@pytest.mark.parametrize("seed", range(5))
def test_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, noise = rng.normal(size=(30, 8)), rng.normal(size=(90, 8))
    owner = np.concatenate([np.arange(30), rng.integers(0, 30, 60)])
    texts = images[owner] + 1.5 * noise
    captions = [np.flatnonzero(owner == image).tolist() for image in range(30)]
    own = [[image] for image in owner.tolist()]
    assert best_ranks(texts, images, owner[:, None]).tolist() == brute_force(texts, images, own)
    ranks = np.array(brute_force(images, texts, captions))
    expected = [100 * np.mean(ranks <= k) for k in (1, 5, 10)]
    result = retrieval(images, texts, owner).image_to_text
    assert [result.r1, result.r5, result.r10, result.median_rank] == pytest.approx([*expected, np.median(ranks)])


def test_many_queries_go_through_in_chunks() -> None:
    rng = np.random.default_rng(1)
    items = rng.normal(size=(50, 4))
    queries = np.tile(items, (60, 1))  # 3,000 queries
    assert recall(queries, items, [[i % 50] for i in range(3000)]) == Recall(100.0, 100.0, 100.0, 1.0)


def test_bad_input_is_named() -> None:
    eye = np.eye(3)
    with pytest.raises(DataError, match="query 1 has no right item"):
        recall(eye, eye, [[0], [], [2]])
    with pytest.raises(DataError, match=r"outside 0\.\.2"):
        recall(eye, eye, [[0], [1], [3]])
    with pytest.raises(DataError, match="need as many"):
        recall(eye, eye, [[0]])
    with pytest.raises(DataError, match=r"\[q, d\]"):
        recall(eye, np.eye(4), [[0]] * 3)
    with pytest.raises(DataError, match="diverged"):
        recall(eye * np.nan, eye, [[0]] * 3)
    with pytest.raises(DataError, match="need one image row each"):
        retrieval(eye, eye, [0])
