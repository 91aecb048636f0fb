"""Recall against hand-made cases and against an implementation that only sorts and looks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mmsearch.errors import DataError
from mmsearch.evaluation.recall import Recall, best_ranks, hubness_of, recall, retrieval
from tests.circle_model import CircleWithBanks, directions, one_centre


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


def test_a_hub_steps_back_by_its_hubness() -> None:
    """Asked at 25 degrees for the item at 0, the hub at 40 is nearer: 0.966 against 0.906; less 0.1 it is not."""
    items, asked = directions(0, 40), 5 * directions(25)
    assert best_ranks(asked, items, [[0]]).tolist() == [2]
    assert best_ranks(asked, items, [[0]], np.array([0.0, 0.1])).tolist() == [1]
    assert best_ranks(asked, items, [[0]], np.array([0.0, 0.05])).tolist() == [2]
    assert best_ranks(asked, items, [[1]], np.array([0.0, 0.1])).tolist() == [2]
    assert recall(asked, items, [[0]], np.array([0.0, 0.1], np.float32)) == Recall(100.0, 100.0, 100.0, 1.0)


def test_equal_hubness_changes_no_rank_and_ties_still_count_against_us() -> None:
    items, asked = directions(0, 40, 90), directions(20, 41, 70)
    for hubness in (None, np.zeros(3), np.full(3, 0.7)):
        assert best_ranks(asked, items, [[0], [1], [1]], hubness).tolist() == [2, 1, 2]
    assert best_ranks(asked[:1], items, [[0]], np.array([-0.01, 0.0, 0.0])).tolist() == [1]


def test_each_way_is_corrected_by_the_hubness_of_its_items() -> None:
    images, texts, owner = directions(0, 40), directions(25, 60), [0, 1]
    all_right, half = Recall(100.0, 100.0, 100.0, 1.0), Recall(50.0, 100.0, 100.0, 1.5)
    plain = retrieval(images, texts, owner)
    assert (plain.text_to_image, plain.image_to_text) == (half, half)
    of_images = retrieval(images, texts, owner, image_hubness=np.array([0.0, 0.1]))
    assert (of_images.text_to_image, of_images.image_to_text) == (all_right, half)
    of_texts = retrieval(images, texts, owner, text_hubness=np.array([0.1, 0.0]))
    assert (of_texts.text_to_image, of_texts.image_to_text) == (half, all_right)
    assert of_texts.ways == {"text_to_image": half, "image_to_text": all_right}


def test_hubness_is_that_of_the_bank_of_the_queries() -> None:
    model, items = CircleWithBanks(one_centre("text", 40, 0.5)), 3 * directions(0, 40, 100)
    found = hubness_of(model, "text", items.astype(np.float64))
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 0.5 * np.cos(np.deg2rad([40, 0, 60])), atol=1e-6)
    assert hubness_of(model, "image", items) is None
    assert hubness_of(object(), "text", items) is None


def brute_force(
    queries: NDArray[np.float64], items: NDArray[np.float64], own: list[list[int]], hubness: NDArray[np.float64]
) -> list[int]:
    ranks = []
    for query, right in zip(queries, own, strict=True):
        cosine = [float(query @ item) / float(np.linalg.norm(query) * np.linalg.norm(item)) for item in items]
        order = sorted(range(len(items)), key=lambda i: hubness[i] - cosine[i])
        wrong_before = 0
        for item in order:
            if item in right:
                break
            wrong_before += 1
        ranks.append(wrong_before + 1)
    return ranks


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_against_brute_force(seed: int, corrected: bool) -> None:
    rng = np.random.default_rng(seed)
    images, noise = rng.normal(size=(30, 8)), rng.normal(size=(90, 8))
    owner = np.concatenate([np.arange(30), rng.integers(0, 30, 60)])
    texts = images[owner] + 1.5 * noise
    captions = [np.flatnonzero(owner == image).tolist() for image in range(30)]
    own = [[image] for image in owner.tolist()]
    of_images, of_texts = (0.2 * corrected * rng.normal(size=n) for n in (30, 90))
    given = {"image_hubness": of_images, "text_hubness": of_texts} if corrected else {}
    asked = best_ranks(texts, images, owner[:, None], given.get("image_hubness"))
    assert asked.tolist() == brute_force(texts, images, own, of_images)
    ranks = np.array(brute_force(images, texts, captions, of_texts))
    expected = [100 * np.mean(ranks <= k) for k in (1, 5, 10)]
    result = retrieval(images, texts, owner, **given).image_to_text
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


@pytest.mark.parametrize(
    ("hubness", "line"),
    [
        (np.zeros(2), r"hubness \(2,\) of 3 items; give one number an item"),
        (np.zeros((3, 1)), r"hubness \(3, 1\) of 3 items"),
        (np.array([0.0, np.nan, 0.0]), "hubness holds NaN or infinity"),
        (np.array([0.0, np.inf, 0.0]), "hubness holds NaN or infinity"),
    ],
)
def test_hubness_that_fits_no_items_is_refused_in_one_line(hubness: NDArray[np.float64], line: str) -> None:
    eye = np.eye(3)
    for measured in (
        lambda: best_ranks(eye, eye, [[0], [1], [2]], hubness),
        lambda: retrieval(eye, eye, [0, 1, 2], image_hubness=hubness),
        lambda: retrieval(eye, eye, [0, 1, 2], text_hubness=hubness),
    ):
        with pytest.raises(DataError, match=line) as refused:
            measured()
        assert "\n" not in str(refused.value)
