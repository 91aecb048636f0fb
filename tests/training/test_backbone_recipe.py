"""Heads on a frozen backbone, from the shipped recipe to a search: features, training, folder, library."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mmsearch.training
from mmsearch import Library, load_model
from mmsearch.errors import ConfigError
from mmsearch.models.backbone import Backbone
from mmsearch.training.backbone_features import backbone_features
from mmsearch.training.corpus import read_corpus
from mmsearch.training.curves import Curves
from mmsearch.training.recipe import Recipe, load_recipe, with_overrides
from mmsearch.training.run import train_recipe
from mmsearch.training.scenes import write_scenes
from tests.tiny_clip import write_tiny_clip

RECIPE = Path(mmsearch.training.__file__).with_name("heads.toml")
SCENES = 30  # each fifth is for validation


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    write_tiny_clip(folder / "clip")
    write_scenes(folder / "scenes", SCENES, seed=5)
    shutil.copytree(folder / "scenes", folder / "again")  # validated on its own photos: the best epoch is the last
    return folder


@pytest.fixture(scope="module")
def recipe(place: Path) -> Recipe:
    recipe = with_overrides(load_recipe(RECIPE), data=(str(place / "scenes"),), backbone=str(place / "clip"))
    return replace(
        recipe,
        validation=str(place / "again"),
        validation_split="train",
        cache=str(place / "cache"),
        model=replace(recipe.model, latent_dim=16, hidden_dim=64, dropout=0.0),
        schedule=replace(recipe.schedule, warm_epochs=40, warm_batch=24, rate_warm=1e-2, average=0.8),
    )


@pytest.fixture(scope="module")
def trained(place: Path, recipe: Recipe) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train_recipe(recipe, place / "run")
    finally:
        torch.set_num_threads(threads)


def test_loss_falls(place: Path, trained: Path) -> None:
    rows = Curves(place / "run" / "heads" / "curves.csv", resume_step=10_000).rows
    assert len(rows) == 40
    assert rows[-1]["loss"] < rows[0]["loss"] - 100
    assert rows[-1]["contrast"] < rows[0]["contrast"] / 2


def test_folder_is_a_model(place: Path, trained: Path) -> None:
    model = load_model(trained, device="cpu")
    assert (model.dim, model.side_px, model.name) == (16, 32, str(trained))
    posterior = model.embed_texts(["a red circle", "two"])
    assert posterior.mu.shape == posterior.logvar.shape == (2, 16)
    assert (posterior.logvar < 0).all()
    assert model.fingerprint == load_model(trained, device="cpu").fingerprint
    assert model.fingerprint != load_model(place / "clip", device="cpu").fingerprint


def test_library_finds_what_was_trained_on(place: Path, recipe: Recipe, trained: Path) -> None:
    corpus = read_corpus(recipe)
    with Library.open(place / "library", model=trained, device="cpu") as library:
        report = library.index(place / "scenes" / "images")
        assert (report.added, report.skipped) == (SCENES, 0)
        ranks = []
        for photo, captions in zip(corpus.photos[: corpus.train], corpus.captions, strict=False):
            found = [hit.path.name for hit in library.search(captions[0], k=SCENES)]
            ranks.append(found.index(photo.name))
    assert np.median(ranks) < 5  # by chance 14


def test_backbone_alone_serves_a_library_at_once(place: Path) -> None:
    photo = next((place / "scenes" / "images").glob("*.png"))
    with Library.open(place / "plain", model=str(place / "clip"), device="cpu") as library:
        assert library.index(place / "scenes" / "images").encoded == SCENES
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


def test_override_takes_a_folder_of_its_own_and_no_export() -> None:
    recipe = load_recipe(RECIPE.with_name("default.toml"))
    other = with_overrides(recipe, backbone="clip-ViT-B-32")
    assert (other.name, other.export) == ("default-clip-ViT-B-32", None)
    assert (other.model.architecture, other.model.backbone) == ("backbone", "clip-ViT-B-32")


def test_recipe_without_a_backbone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.read_text().replace('"clip-ViT-B-32"', '""'))
    with pytest.raises(ConfigError, match=r"model\.backbone is empty"):
        load_recipe(path)
