"""Features on disk: any run reads its rows from a file that has them, and from no other."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.training.corpus import Corpus
from mmsearch.training.features import Wanted, _keys, find, save, training_part

PHOTOS, CAPTIONS = ["a/1 10", "a/2 10", "b/1 10"], ["a dog", "a cat", "two dogs", "a dog on a beach"]
IMAGES = np.arange(6, dtype=np.float32).reshape(3, 2)
TEXTS = 10 + np.arange(4, dtype=np.float32).reshape(4, 1)


def wanted(photos: list[str], captions: list[str]) -> Wanted:
    return Wanted("weights", _keys(photos), _keys(captions))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    save(tmp_path / "run" / "features.npz", wanted(PHOTOS, CAPTIONS), IMAGES, TEXTS)
    return tmp_path


def test_a_part_in_another_order_and_twice(cache: Path) -> None:
    found = find(cache, wanted([PHOTOS[2], PHOTOS[0]], [CAPTIONS[3], CAPTIONS[0], CAPTIONS[3]]))
    assert found is not None
    assert found[0].tolist() == [[4, 5], [0, 1]]
    assert found[1].tolist() == [[13], [10], [13]]
    assert found[0].dtype == found[1].dtype == np.float32


@pytest.mark.parametrize(
    "other",
    [
        wanted(["c/9 10"], CAPTIONS),
        wanted(["a/1 11"], CAPTIONS),  # another size: another photo
        wanted(PHOTOS, ["A dog"]),
        replace(wanted(PHOTOS, CAPTIONS), weights="others"),
    ],
)
def test_what_is_not_there_is_not_found(cache: Path, other: Wanted) -> None:
    assert find(cache, other) is None


def test_the_file_that_has_it_all_is_taken(cache: Path) -> None:
    save(cache / "another" / "features.npz", wanted(["c/9 10"], ["a bird"]), IMAGES[:1] + 100, TEXTS[:1] + 100)
    found = find(cache, wanted(["c/9 10"], ["a bird"]))
    assert found is not None
    assert found[0].tolist() == [[100, 101]]
    assert find(cache, wanted(["c/9 10"], ["a dog"])) is None  # half in one, half in the other
    assert len(list(cache.rglob("*.npz"))) == 2


def test_a_damaged_file_and_one_of_before_are_passed_over(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("0-cut", "0-old"):
        (cache / name).mkdir()
    whole = (cache / "run" / "features.npz").read_bytes()
    (cache / "0-cut" / "features.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(cache / "0-old" / "features.npz", images=IMAGES, texts=TEXTS)
    with caplog.at_level(logging.WARNING):
        assert find(cache, wanted(PHOTOS, CAPTIONS)) is not None
    assert [record.message.split(" cannot")[0] for record in caplog.records] == [str(cache / "0-cut" / "features.npz")]


def test_the_training_part_stops_before_validation() -> None:
    corpus = Corpus(
        photos=(Path("1"), Path("2"), Path("3")),
        captions=(("a", "b"), ("c",), ("d", "e")),
        shares=np.ones(2),
        sentences=2,
        train=2,
    )
    images, texts, photo = training_part(corpus, torch.arange(3), torch.arange(5))
    assert (images.tolist(), texts.tolist(), photo.tolist()) == ([0, 1], [0, 1, 2], [0, 0, 1])
