"""The table on sixty made-up pairs: what is measured, what is left empty, and that nothing is computed twice."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmsearch.training
from mmsearch.errors import ConfigError
from mmsearch.models.vae import FeatureEncoder, MultimodalVAE
from mmsearch.models.variants import Variant
from mmsearch.training import table as module
from mmsearch.training.corpus import Corpus
from mmsearch.training.recipe import Recipe, load_recipe
from mmsearch.training.table import ROWS, Data, markdown, measure, run_table, table, train_row

SHIPPED = Path(mmsearch.training.__file__).with_name("table.toml")
PHOTOS, TRAIN, F, G, D = 60, 48, 6, 5, 3
SOME: tuple[Variant, ...] = ("cca", "ae", "mmvae", "contrast")


@pytest.fixture(scope="module")
def data() -> Data:
    """Photos that their captions tell of, two captions each."""
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(PHOTOS, 4, generator=draw)
    images = z @ torch.randn(4, F, generator=draw) + 0.3 * torch.randn(PHOTOS, F, generator=draw)
    twice = z.repeat_interleave(2, 0)
    texts = twice @ torch.randn(4, G, generator=draw) + 0.3 * torch.randn(2 * PHOTOS, G, generator=draw)
    captions = tuple((f"{i} one", f"{i} two") for i in range(PHOTOS))
    corpus = Corpus(tuple(Path(str(i)) for i in range(PHOTOS)), captions, np.ones(TRAIN), TRAIN, TRAIN)
    return Data(corpus, images, texts)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    shipped = load_recipe(SHIPPED)
    return replace(
        shipped,
        model=replace(shipped.model, latent_dim=D, hidden_dim=8),
        schedule=replace(shipped.schedule, warm_epochs=2, warm_batch=16),
    )


@pytest.fixture(scope="module")
def folder(recipe: Recipe, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("table")
    assert table(recipe, data, place, seeds=(0, 1), variants=SOME) == place / "table.md"
    return place


def test_a_line_a_run_and_empty_where_a_number_would_mean_nothing(folder: Path) -> None:
    with (folder / "table.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["variant"], row["seed"]) for row in rows] == [(v, s) for s in "01" for v in SOME]
    for row in rows:
        empty = {column for column, cell in row.items() if not cell}
        bounds = {"elbo", "iw50", "kl_image", "kl_text", "units_image", "units_text"}
        errors = {f"error_{a}_{b}" for a in ("image", "text") for b in ("image", "text")}
        assert empty == {"ae": bounds, "contrast": bounds | errors}.get(row["variant"], set())
        assert 0 < float(row["i2t_r10"]) <= 100
    linear = [row for row in rows if row["variant"] == "cca"]
    assert {**linear[0], "seed": ""} == {**linear[1], "seed": ""}  # nothing in it is random
    mixture = next(row for row in rows if row["variant"] == "mmvae")
    assert float(mixture["elbo"]) < float(mixture["iw50"])


def test_the_markdown_has_mean_and_spread(folder: Path) -> None:
    lines = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ") and not line.startswith("| |")] == [
        f"| {ROWS[variant]}" for variant in SOME
    ] * 2
    widths = [line.count("|") for line in lines if line]
    assert widths == [8] * 6 + [10] * 6
    found = [
        {"variant": "ae", "seed": s, **dict.fromkeys(module.COLUMNS), "i2t_r1": v} for s, v in ((0, 10.0), (1, 12.0))
    ]
    assert markdown(found).splitlines()[2] == f"| {ROWS['ae']} | 11.0 ± 1.4 | - | - | - | - | - |"
    assert markdown(found[:1]).splitlines()[2] == f"| {ROWS['ae']} | 10.0 | - | - | - | - | - |"


def test_what_is_there_is_not_computed_again(
    folder: Path, recipe: Recipe, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "table.csv").read_text(encoding="utf-8")
    asked: list[str] = []

    def refuse(run: Recipe, data: Data, place: Path) -> MultimodalVAE:
        asked.append(place.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train_row", refuse)
    table(recipe, data, folder, seeds=(0, 1), variants=SOME)
    assert (folder / "table.csv").read_text(encoding="utf-8") == before
    with pytest.raises(KeyboardInterrupt):
        table(recipe, data, folder, seeds=(0, 1, 2), variants=SOME)
    assert asked == ["cca-2"]


def test_numbers_of_another_recipe_are_not_taken_for_this_one(folder: Path, recipe: Recipe, data: Data) -> None:
    longer = replace(recipe, schedule=replace(recipe.schedule, warm_epochs=3))
    with pytest.raises(ConfigError, match=r"cca-0 holds a run of another recipe; give another folder with --out"):
        table(longer, data, folder, variants=("cca",))
    kept = json.loads((folder / "mmvae-1" / "numbers.json").read_text(encoding="utf-8"))
    assert kept["recipe"]["seed"] == 1
    assert kept["recipe"]["objective"]["variant"] == "mmvae"


def test_a_row_is_the_same_again_and_knows_nothing_of_the_validation(
    recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    run = replace(recipe, objective=replace(recipe.objective, variant="mvae"))
    first = train_row(run, data, tmp_path / "first").state_dict()
    images, texts = data.images.clone(), data.texts.clone()
    images[TRAIN:], texts[2 * TRAIN :] = 1e3, -1e3
    second = train_row(run, replace(data, images=images, texts=texts), tmp_path / "second").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


class Fixed(nn.Module):
    """Decodes anything to one row of features."""

    def __init__(self, row: Tensor) -> None:
        super().__init__()
        self.row = row

    def forward(self, z: Tensor) -> Tensor:
        return self.row.expand(len(z), -1)

    def log_prob(self, target: Tensor, z: Tensor) -> Tensor:
        return -(target - self(z)).square().sum(1)


def test_columns_by_hand(data: Data) -> None:
    """An encoder that returns its input, a decoder that ignores it: recall 100, errors of a constant."""
    same = Data(data.corpus, torch.randn(PHOTOS, F), torch.zeros(2 * PHOTOS, F))
    same.texts[0::2] = same.images
    same.texts[1::2] = 2 * same.images  # the cosine knows no length

    class Same(FeatureEncoder):
        def from_features(self, features: Tensor):  # type: ignore[no-untyped-def]
            encoding = super().from_features(features)
            return encoding._replace(mu=features, logvar=torch.full_like(features, -1.0))

    encoders = {m: Same(F, 4, F, 0.0).eval() for m in ("image", "text")}
    vae = MultimodalVAE(encoders, {m: Fixed(torch.full((F,), 0.5)) for m in ("image", "text")})
    found = measure(vae, "mvae", same)
    assert [found[column] for column in ("i2t_r1", "i2t_r10", "t2i_r1", "t2i_r10")] == [100] * 4
    x = same.images[TRAIN:]
    error = (x - 0.5).square().mean().item()
    for column in ("error_image_image", "error_text_text", "error_image_text", "error_text_image"):
        assert found[column] == pytest.approx(error, rel=1e-5)  # each photo with its first caption
    likelihood = -2 * (x - 0.5).square().sum(1)
    precision = 2 * np.e - 1
    mu = 2 * np.e * x / precision
    divergence = 0.5 * (mu.square() + 1 / precision - 1 + np.log(precision)).sum(1)
    assert found["elbo"] == pytest.approx((likelihood - divergence).mean().item(), rel=1e-4)
    assert found["units_image"] == F
    kl = 0.5 * (x.square() + np.exp(-1) - 1 + 1).sum(1).mean().item()
    assert found["kl_image"] == pytest.approx(kl, rel=1e-4)
    assert measure(vae, "contrast", same)["error_text_image"] is None


def test_only_heads_on_the_trunks_make_a_table(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text('name = "x"\nvalidation = "y"\n[[data]]\npath = "y"\n[model]\narchitecture = "scratch"\n')
    with pytest.raises(ConfigError, match=r"other\.toml: a table needs model\.architecture = 'pretrained'"):
        run_table(file)


def test_the_shipped_recipe_trains_heads_alone() -> None:
    shipped = load_recipe(SHIPPED)
    assert (shipped.schedule.epochs, shipped.schedule.texts, shipped.objective.variant) == (0, 1, "full")
    assert shipped.export is None
