"""A recipe and what the command line changes in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import mmsearch.training
from mmsearch.errors import ConfigError
from mmsearch.training.recipe import DataSource, Recipe, load_recipe, with_overrides

RECIPE = Path(mmsearch.training.__file__).with_name("heads.toml")


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


def test_the_command_line_names_the_run_after_what_it_changes() -> None:
    recipe = Recipe("talks", (DataSource("photos"),), "photos")
    changed = with_overrides(recipe, variant="mopoe", seed=3)
    assert (changed.objective.variant, changed.seed, changed.name) == ("mopoe", 3, "talks-mopoe-3")
    assert replace(changed, objective=recipe.objective, seed=0, name="talks") == recipe
    assert (recipe.objective.variant, with_overrides(recipe)) == ("full", recipe)
    with pytest.raises(ConfigError, match=r"'mopo' is not known; one of full, cca, ae, .* is"):
        with_overrides(recipe, variant="mopo")
