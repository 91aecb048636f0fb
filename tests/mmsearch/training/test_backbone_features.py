"""Heads on a frozen backbone, from the shipped recipe to a search: features, training, folder, library."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mmsearch.training
from mmsearch import Library, load_model
from mmsearch.cli.app import main
from mmsearch.data.datasets import read_dataset
from mmsearch.data.scenes import write_scenes
from mmsearch.evaluation.evaluate import evaluate
from mmsearch.evaluation.recall import retrieval
from mmsearch.evaluation.subject import Subject
from mmsearch.inference.backbone import Backbone
from mmsearch.training.corpus import read_corpus
from mmsearch.training.features import backbone_features
from mmsearch.training.learning_curves import LearningCurves
from mmsearch.training.recipe import Recipe, load_recipe, with_overrides
from tests.tiny_clip import write_tiny_clip

RECIPE = Path(mmsearch.training.__file__).with_name("heads.toml")
SCENES = 300  # each fifth is for validation
HELD_OUT = SCENES // 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    write_tiny_clip(folder / "clip")
    write_scenes(folder / "scenes", SCENES, seed=5, plain=True)
    return folder


@pytest.fixture(scope="module")
def recipe(place: Path) -> Recipe:
    recipe = with_overrides(load_recipe(RECIPE), data=(str(place / "scenes"),), backbone=str(place / "clip"))
    return replace(recipe, cache=str(place / ".cache" / "mmsearch-train"))


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """The command as the README has it: no recipe, a model and a folder."""
    threads, before = torch.get_num_threads(), Path.cwd()
    torch.set_num_threads(1)
    os.chdir(place)
    try:
        assert main(["train", "--model", "./clip", "--data", "./scenes"]) == 0
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
    return place / "runs" / "heads-clip" / "model"


def test_loss_falls(trained: Path) -> None:
    rows = LearningCurves(trained.parent / "heads" / "curves.csv", resume_step=10_000).rows
    assert len(rows) == 30
    assert rows[-1]["loss"] < rows[0]["loss"] - 100
    assert rows[-1]["contrast"] < rows[0]["contrast"] - 0.5
    assert max(row["mean_recall"] for row in rows) > 18  # on 60 pictures held out; by chance 9


def test_folder_is_a_model(place: Path, trained: Path) -> None:
    model = load_model(trained, device="cpu")
    assert (model.dim, model.side_px, model.name) == (256, 32, str(trained))
    posterior = model.embed_texts(["a red circle", "two"])
    assert posterior.mu.shape == posterior.logvar.shape == (2, 256)
    assert (posterior.logvar < 0).all()
    assert model.fingerprint == load_model(trained, device="cpu").fingerprint
    assert model.fingerprint != load_model(place / "clip", device="cpu").fingerprint


def test_heads_beat_the_backbone_on_scenes_held_out(
    place: Path, trained: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A backbone of random weights ranks by chance; what its features hold of the scenes, the heads bring out."""
    assert main(["eval", str(place / "scenes"), "--model", str(trained), "--json"]) == 0
    report = json.loads(capfdbinary.readouterr().out)
    assert (report["images"], report["texts"]) == (HELD_OUT, 5 * HELD_OUT)
    for way in ("text_to_image", "image_to_text"):
        bare, own = report["backbone"][way], report[way]
        assert bare["r10"] < 25, way  # by chance 17
        assert own["r10"] > bare["r10"] + 15, way
        assert own["median_rank"] < bare["median_rank"] / 1.5, way
    assert main(["eval", str(place / "scenes"), "--model", str(trained)]) == 0
    shown = capfdbinary.readouterr().out.decode()
    assert [line for line in shown.splitlines() if line.startswith("backbone alone, text to image")]


def test_the_backbones_figures_are_those_it_has_alone(place: Path, trained: Path) -> None:
    beside = evaluate(Subject.load(place / "scenes", model=str(trained), device="cpu"))
    alone = evaluate(Subject.load(place / "scenes", model=str(place / "clip"), device="cpu"))
    assert beside.backbone == {"text_to_image": alone.text_to_image, "image_to_text": alone.image_to_text}
    assert alone.backbone == {}
    model = load_model(trained, device="cpu")  # and the heads' figures are those of the model as everybody uses it
    examples = read_dataset(place / "scenes", "val")
    captions = [caption for example in examples for caption in example.captions]
    images, texts = model.embed_images([example.image for example in examples]), model.embed_texts(captions)
    owner = np.repeat(np.arange(len(examples)), [len(example.captions) for example in examples])
    assert retrieval(images.mu, texts.mu, owner).mean_recall == pytest.approx(beside.mean_recall, abs=1)


def test_library_finds_what_was_held_out(place: Path, trained: Path) -> None:
    examples = read_dataset(place / "scenes", "val")
    (place / "held-out").mkdir()
    for example in examples:
        shutil.copyfile(example.image, place / "held-out" / example.image.name)
    with Library.open(place / "library", model=trained, device="cpu") as library:
        report = library.index(place / "held-out")
        assert (report.added, report.skipped) == (HELD_OUT, 0)
        ranks = []
        for example in examples[::3]:
            found = [hit.path.name for hit in library.search(example.captions[0], k=HELD_OUT)]
            ranks.append(found.index(example.image.name))
    assert np.median(ranks) < 20  # by chance 30


def test_backbone_alone_serves_a_library_at_once(place: Path) -> None:
    folder = place / "few"
    folder.mkdir()
    for photo in sorted((place / "scenes" / "images").glob("*.png"))[:20]:
        shutil.copyfile(photo, folder / photo.name)
    photo = next(folder.glob("*.png"))
    with Library.open(place / "plain", model=str(place / "clip"), device="cpu") as library:
        assert library.index(folder).encoded == 20
        first = library.search(image=photo, k=1)[0]
    assert first.path.name == photo.name
    assert first.score == pytest.approx(1, abs=1e-3)


def test_features_are_computed_once(place: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, corpus = Backbone.load(str(place / "clip")), read_corpus(recipe)
    cache = place / "other-cache"
    images, texts = backbone_features(backbone, corpus, cache)
    np.testing.assert_allclose(images.norm(dim=1), 1, atol=1e-5)
    captions = [caption for captions in corpus.captions for caption in captions]
    assert (len(images), len(texts)) == (len(corpus.photos), len(captions))
    np.testing.assert_allclose(texts[:5], backbone.texts(captions[:5]), atol=1e-4)

    def refuse(self: Backbone, inputs: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(Backbone, "_encode", refuse)
    again, _ = backbone_features(backbone, corpus, cache)
    assert torch.equal(again, images)
    moved = replace(corpus, captions=(("another caption",), *corpus.captions[1:]))
    with pytest.raises(AssertionError, match="computed again"):
        backbone_features(backbone, moved, cache)
