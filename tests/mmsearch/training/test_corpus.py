"""All data sets of a run in one order: sentences, labels, validation; held-out names are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.errors import DataError
from mmsearch.training.corpus import Corpus, read_corpus
from mmsearch.training.recipe import DataSource, Recipe


def data_set(folder: Path, seed: int, *rows: tuple[str, str]) -> Path:
    """`(split, caption)` of each picture; pictures of noise, each its own."""
    folder.mkdir()
    lines = ["image,caption,split"]
    for number, (split, caption) in enumerate(rows):
        pixels = np.random.default_rng((seed, number)).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{caption},{split}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    sentences = data_set(
        tmp_path / "sentences", 1, ("train", "a dog runs"), ("train", "a cat sits"), ("val", "a hill"), ("val", "a sea")
    )
    labels = data_set(tmp_path / "labels", 2, ("train", "Snow_Leopard"), ("train", "tram"), ("train", "owl"))
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("snow leopard\n")
    sources = (DataSource(str(labels), "labels", 0.5, str(held_out)), DataSource(str(sentences)))
    return Recipe("run", sources, str(sentences), cache=str(tmp_path / "cache"))


def test_sentences_come_first_then_labels_then_validation(recipe: Recipe) -> None:
    corpus = read_corpus(recipe)
    assert [captions[0] for captions in corpus.captions] == [
        "a dog runs",
        "a cat sits",
        "tram",
        "owl",
        "a hill",
        "a sea",
    ]
    assert (corpus.sentences, corpus.train) == (2, 4)
    assert corpus.shares.tolist() == [1, 1, 0.5, 0.5]


def test_an_epoch_sees_a_share_of_the_labels_and_all_sentences() -> None:
    shares = np.r_[np.ones(50), np.full(1000, 0.3)]
    corpus = Corpus((), (), shares, sentences=50, train=1050)
    sentences, labels = corpus.epoch(np.random.default_rng(0))
    assert sorted(sentences.tolist()) == list(range(50))
    assert 250 < len(labels) < 350
    assert labels.min() >= 50
    again = corpus.epoch(np.random.default_rng(0))
    np.testing.assert_array_equal(np.concatenate([sentences, labels]), np.concatenate(again))


def test_a_photo_in_both_splits_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    table = tmp_path / "sentences" / "captions.csv"
    (tmp_path / "sentences" / "copy.png").write_bytes((tmp_path / "sentences" / "0.png").read_bytes())
    table.write_text(table.read_text() + "copy.png,the same dog,val\n")
    with pytest.raises(DataError, match=r"1 of 3 validation photos are trained on under another name.*copy\.png"):
        read_corpus(recipe)
