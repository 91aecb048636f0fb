"""The from-scratch configuration learns rendered scenes, end to end through the recipe it ships with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import mmsearch.training
from mmsearch.data.scenes import write_scenes
from mmsearch.models.checkpoint import load_vae
from mmsearch.training.learning_curves import LearningCurves
from mmsearch.training.recipe import DataSource, load_recipe
from mmsearch.training.run import train_recipe

RECIPE = Path(mmsearch.training.__file__).with_name("scenes.toml")


def test_scenes_are_learned(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        folder = write_scenes(tmp_path / "scenes", 500, seed=5).parent
        recipe = load_recipe(RECIPE)
        recipe = replace(
            recipe,
            data=(DataSource(str(folder)),),
            validation=str(folder),
            cache=str(tmp_path / "cache"),
            schedule=replace(recipe.schedule, epochs=4, batch=32),
        )
        model = train_recipe(recipe, tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    rows = LearningCurves(next((tmp_path / "run").glob("*/curves.csv")), resume_step=10_000).rows
    assert len(rows) == 4
    assert rows[-1]["elbo"] > rows[0]["elbo"] + 5_000
    # chance among 100 pictures is 10 % at R@10
    assert rows[-1]["t2i_r10"] > 30
    assert rows[-1]["i2t_r10"] > 30
    vae, architecture = load_vae(model)
    assert (architecture.kind, architecture.latent_dim) == ("scratch", 64)
    assert set(vae.decoders) == {"image", "text"}
