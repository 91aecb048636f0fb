"""`mmsearch train`: a recipe in, a model folder out.

    recipe -> corpus -> initial weights -> stages, each by the same loop -> fewer words -> self-distillation on typos ->
    export -> calibration queries

Every stage resumes on its own; a run that was cut off starts again with `resume=True` and skips what is done.
Next: `export/export.py`, which writes what is shipped.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer

from mmsearch.data.augmentation_cache import AugmentationCache
from mmsearch.errors import CheckpointError, ConfigError, ModelError, TrainingError
from mmsearch.inference.backbone import Backbone
from mmsearch.inference.known_models import full_name, remember_made, remember_model
from mmsearch.inference.load_model import find_tried
from mmsearch.models.checkpoint import Architecture, build, save_model
from mmsearch.models.tokens import cut_vocabulary, frequent_words, word_tokenizer
from mmsearch.models.vae import ImageEncoder, MultimodalVAE, TextEncoder, channels_last
from mmsearch.training.calibration_queries import add_banks
from mmsearch.training.cca import fit_heads
from mmsearch.training.corpus import Corpus, read_corpus
from mmsearch.training.export.export import export
from mmsearch.training.features import backbone_features, training_part, trunk_features
from mmsearch.training.loop import Loop
from mmsearch.training.objective import Contrast
from mmsearch.training.pretrained_init import fresh_heads, pretrained
from mmsearch.training.recipe import Recipe, load_recipe, with_overrides
from mmsearch.training.self_distillation import SelfDistillation
from mmsearch.training.stages import FeatureStage, Stage
from mmsearch.training.step import keep_freed_memory
from mmsearch.training.trunk_stages import CachedStage, PixelStage

log = logging.getLogger(__name__)

_HEADS = Path(__file__).with_name("heads.toml")
_BUILDS = ("architecture", "trunk", "backbone", "latent_dim", "hidden_dim")  # the shape of the weights depends on these


def train(
    config_path: Path | None = None,
    *,
    resume: bool = False,
    data: list[Path] | None = None,
    model: str | None = None,
    out: Path | None = None,
    variant: str | None = None,
    seed: int | None = None,
) -> Path:
    """Train what a recipe says.

    Args:
        config_path: the recipe, TOML; None takes the one for heads on `model`.
        resume: go on where an earlier run of the same recipe stopped.
        data: data sets in place of the recipe's.
        model: a sentence-transformers model to put heads on, in place of the recipe's architecture.
        out: folder of the run; default `runs/<name>`.
        variant: another objective than the recipe's (`models/variants.py`); the run is named after it.
        seed: another than the recipe's; likewise.

    Returns:
        The folder of the trained model, which `--model` and `load_model` take.

    Raises:
        ConfigError: a recipe that cannot be read; neither a recipe nor a model.
        DataError: a data set that cannot be used.
        ModelError: initial weights or a backbone that cannot be loaded.
        CheckpointError: a run to go on with that is damaged or of another architecture.
        TrainingError: a loss that is not a number.
    """
    if config_path is None:
        if model is None:
            raise ConfigError("nothing says what to train; name a recipe (a TOML file), or a model with --model NAME")
        if not data:
            raise ConfigError(f"no photos to put heads on {model!r} with; name captioned ones with --data FOLDER")
        config_path = _HEADS
    if model == "default" or (model is not None and (Path(model).expanduser() / "model.json").exists()):
        raise ModelError(
            f"{model!r} is a model of mmsearch itself; heads go on a sentence-transformers model, as clip-ViT-B-32"
        )
    recipe = with_overrides(
        load_recipe(config_path), data=tuple(map(str, data or ())), backbone=model, variant=variant, seed=seed
    )
    trained = train_recipe(recipe, Path(out) if out else Path(recipe.out) / recipe.name, resume=resume)
    remember_made(trained)
    return trained


def train_recipe(recipe: Recipe, folder: Path, *, resume: bool = False) -> Path:
    """The same from a `Recipe` in hand."""
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    _prepare(folder, recipe, resume)
    corpus = read_corpus(recipe)
    log.info("%d photos to train on, %d to validate", corpus.train, len(corpus.photos) - corpus.train)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if recipe.model.architecture == "backbone":
        return _train_heads(recipe, corpus, folder, resume, device)
    vae, architecture, tokenizer = _initial(recipe, corpus)
    vae, contrast = vae.to(device), Contrast(recipe.objective.temperature).to(device)
    best: float | None = None  # where no stage is trained none is measured
    for stage in _stages(recipe, corpus, vae, tokenizer):
        best = Loop(recipe, vae, contrast, stage, folder / stage.name).run(resume).best
    if recipe.export is not None and recipe.export.words:
        words = frequent_words(tokenizer, recipe.export.words, corpus.training_captions)
        architecture, tokenizer = cut_vocabulary(vae, architecture, tokenizer, words)
    if recipe.schedule.typo_epochs and recipe.model.architecture == "pretrained":
        SelfDistillation(recipe, corpus, tokenizer).run(vae, folder / "typos", resume)
        side_px = cast(ImageEncoder, vae.encoders["image"]).trunk.side_px
        best = PixelStage(recipe, corpus, tokenizer, side_px, 0).validate(vae.eval()).mean_recall
        log.info("typos: mean recall %.2f", best)
    extra = _noted(recipe, contrast, best)
    trained = save_model(
        folder / "model", vae, architecture, name=recipe.name, tokenizer_json=tokenizer.to_str(), extra=extra
    )
    if recipe.export is None:
        return trained
    photos = corpus.photos[: corpus.train]
    shipped = export(trained, folder / "shipped", precision=recipe.export.precision, photos=photos)
    if recipe.export.queries:
        add_banks(shipped, corpus, recipe.export)
    return shipped


def _train_heads(recipe: Recipe, corpus: Corpus, folder: Path, resume: bool, device: str) -> Path:
    """Heads on the features of a backbone that stays as it is."""
    find_tried(recipe.model.backbone)
    backbone = Backbone.load(recipe.model.backbone, device)
    remember_model(backbone, recipe.model.backbone)
    images, texts = backbone_features(backbone, corpus, Path(recipe.cache))
    trained_on = training_part(corpus, images, texts)[:2]
    name = full_name(recipe.model.backbone)
    vae, architecture = fresh_heads(recipe.model, *trained_on, name, backbone.side_px)
    vae, contrast = vae.to(device), Contrast(recipe.objective.temperature).to(device)
    stage = FeatureStage(recipe, corpus, images, texts)
    best = Loop(recipe, vae, contrast, stage, folder / stage.name).run(resume).best
    extra = {"backbone_fingerprint": backbone.fingerprint, **_noted(recipe, contrast, best)}
    return save_model(folder / "model", vae, architecture, name=recipe.name, extra=extra)


def _noted(recipe: Recipe, contrast: Contrast, best: float | None) -> dict[str, object]:
    """What `model.json` says of the training."""
    return {
        "temperature": float((-contrast.log_scale.detach()).exp()),
        "validation_mean_recall": best,
        "data": [Path(source.path).name for source in recipe.data],
    }


def _prepare(folder: Path, recipe: Recipe, resume: bool) -> None:
    """An empty folder for the run, or the one to go on in. Only a folder that an earlier run made is emptied."""
    marker = folder / "recipe.json"
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise TrainingError(f"{folder} is not empty and no run made it; give an empty folder with --out")
        if not resume:
            shutil.rmtree(folder)
        else:
            _refuse_other_model(marker, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(asdict(recipe), indent=1) + "\n")


def _refuse_other_model(marker: Path, recipe: Recipe) -> None:
    """Raise CheckpointError where the run was begun with another model than the recipe's."""
    try:
        before = json.loads(marker.read_text(encoding="utf-8"))["model"]
    except (ValueError, KeyError, TypeError):  # cut off while it was written: then no checkpoint was
        return
    for key in _BUILDS:
        then, now = before.get(key), getattr(recipe.model, key)
        if then != now:
            raise CheckpointError(
                f"the run in {marker.parent} was begun with model.{key} = {then!r}, the recipe says {now!r}; take "
                "the recipe it was begun with, or train without --resume"
            )


def _initial(recipe: Recipe, corpus: Corpus) -> tuple[MultimodalVAE, Architecture, Tokenizer]:
    if recipe.model.architecture == "pretrained":
        vae, architecture, tokenizer = pretrained(recipe.model)
        return channels_last(vae), architecture, tokenizer
    tokenizer = word_tokenizer(corpus.training_captions)
    architecture = Architecture(
        kind="scratch",
        vocabulary=tokenizer.get_vocab_size(),
        latent_dim=recipe.model.latent_dim,
        hidden_dim=recipe.model.hidden_dim,
        max_tokens=recipe.model.max_tokens,
    )
    return build(architecture, recipe.model.dropout), architecture, tokenizer


def _stages(recipe: Recipe, corpus: Corpus, vae: MultimodalVAE, tokenizer: Tokenizer) -> Iterator[Stage]:
    """The stages in order; each is made only when the one before has ended."""
    s = recipe.schedule
    if recipe.model.architecture == "scratch":
        yield PixelStage(recipe, corpus, tokenizer, side_px=64, epochs=s.epochs)
        return
    image, text = cast(ImageEncoder, vae.encoders["image"]), cast(TextEncoder, vae.encoders["text"])
    views = AugmentationCache(Path(recipe.cache), corpus.photos, image.trunk, recipe.augmentation, recipe.seed)
    images, texts = trunk_features(views, image, text, corpus, tokenizer, recipe.model.max_tokens)
    image.head.fit_standardisation(images[: corpus.train])
    text.head.fit_standardisation(texts)
    if recipe.objective.variant == "cca":
        fit_heads(vae, *training_part(corpus, images, texts))
        return
    yield FeatureStage(recipe, corpus, images, texts)
    if s.epochs:
        yield CachedStage(recipe, corpus, tokenizer, views)
    if s.deep_epochs:
        yield PixelStage(recipe, corpus, tokenizer, image.trunk.side_px, s.deep_epochs)
