"""`mmsearch train`: a recipe in, a model folder out.

    recipe -> corpus -> model with its initial weights -> stages, each by the same loop -> export

Every stage resumes on its own; a run that was cut off starts again with `resume=True` and skips what is done.
Next: `export.py`, which writes what is shipped.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.errors import TrainingError
from mmsearch.models.backbone import Backbone, absolute_name
from mmsearch.models.checkpoint import Architecture, build, save_model
from mmsearch.models.vae import FeatureEncoder, ImageEncoder, MultimodalVAE, TextEncoder, channels_last
from mmsearch.training.backbone_features import backbone_features
from mmsearch.training.corpus import Corpus, read_corpus
from mmsearch.training.initial import pretrained
from mmsearch.training.loop import Loop
from mmsearch.training.malloc import keep_freed_memory
from mmsearch.training.objective import Contrast
from mmsearch.training.recipe import Recipe, load_recipe, with_overrides
from mmsearch.training.stages import CachedStage, FeatureStage, PixelStage, Stage
from mmsearch.training.texts import tokenise, word_tokenizer
from mmsearch.training.views import Views

log = logging.getLogger(__name__)


def train(
    config_path: Path,
    *,
    resume: bool = False,
    data: list[Path] | None = None,
    model: str | None = None,
    out: Path | None = None,
) -> Path:
    """Train what a recipe says.

    Args:
        config_path: the recipe, TOML.
        resume: go on where an earlier run of the same recipe stopped.
        data: data sets in place of the recipe's.
        model: a sentence-transformers model to put heads on, in place of the recipe's architecture.
        out: folder of the run; default `runs/<name>`.

    Returns:
        The folder of the trained model, which `--model` and `load_model` take.

    Raises:
        ConfigError: a recipe that cannot be read.
        DataError: a data set that cannot be used.
        ModelError: initial weights or a backbone that cannot be loaded.
        TrainingError: a loss that is not a number.
    """
    recipe = with_overrides(load_recipe(config_path), data=tuple(map(str, data or ())), backbone=model)
    return train_recipe(recipe, Path(out) if out else Path(recipe.out) / recipe.name, resume=resume)


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
    best = 0.0
    for stage in _stages(recipe, corpus, vae, tokenizer):
        best = Loop(recipe, vae, contrast, stage, folder / stage.name).run(resume).best
    extra = {
        "temperature": float((-contrast.log_scale.detach()).exp()),
        "validation_mean_recall": best,
        "data": [Path(source.path).name for source in recipe.data],
    }
    trained = save_model(
        folder / "model", vae, architecture, name=recipe.name, tokenizer_json=tokenizer.to_str(), extra=extra
    )
    if recipe.export is None:
        return trained
    from mmsearch.training.export import export, frequent_words

    words = frequent_words(tokenizer, recipe.export.words, corpus)
    return export(trained, folder / "shipped", precision=recipe.export.precision, words=words)


def _train_heads(recipe: Recipe, corpus: Corpus, folder: Path, resume: bool, device: str) -> Path:
    """Heads on the features of a backbone that stays as it is; `mmsearch/models/backbone.py` reads the folder."""
    backbone = Backbone.load(recipe.model.backbone, device)
    images, texts = backbone_features(backbone, corpus, Path(recipe.cache))
    architecture = Architecture(
        kind="backbone",
        backbone=absolute_name(recipe.model.backbone),
        latent_dim=recipe.model.latent_dim,
        hidden_dim=recipe.model.hidden_dim,
        image_features=backbone.features,
        text_features=backbone.features,
        side_px=backbone.side_px,
    )
    vae = build(architecture, recipe.model.dropout)
    first_validation_text = sum(len(captions) for captions in corpus.captions[: corpus.train])
    cast(FeatureEncoder, vae.encoders["image"]).head.fit_standardisation(images[: corpus.train])
    cast(FeatureEncoder, vae.encoders["text"]).head.fit_standardisation(texts[:first_validation_text])
    vae, contrast = vae.to(device), Contrast(recipe.objective.temperature).to(device)
    stage = FeatureStage(recipe, corpus, images, texts)
    best = Loop(recipe, vae, contrast, stage, folder / stage.name).run(resume).best
    extra = {
        "backbone_fingerprint": backbone.fingerprint,
        "temperature": float((-contrast.log_scale.detach()).exp()),
        "validation_mean_recall": best,
        "data": [Path(source.path).name for source in recipe.data],
    }
    return save_model(folder / "model", vae, architecture, name=recipe.name, extra=extra)


def _prepare(folder: Path, recipe: Recipe, resume: bool) -> None:
    """An empty folder for the run, or the one to go on in. Only a folder that an earlier run made is emptied."""
    marker = folder / "recipe.json"
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise TrainingError(f"{folder} is not empty and no run made it; give an empty folder with --out")
        if not resume:
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(asdict(recipe), indent=1) + "\n")


def _initial(recipe: Recipe, corpus: Corpus) -> tuple[MultimodalVAE, Architecture, Tokenizer]:
    if recipe.model.architecture == "pretrained":
        vae, architecture, tokenizer = pretrained(recipe.model)
        return channels_last(vae), architecture, tokenizer
    tokenizer = word_tokenizer(c for captions in corpus.captions[: corpus.train] for c in captions)
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
    views = Views(Path(recipe.cache), corpus.photos, image.trunk, recipe.augmentation, recipe.seed)
    images, texts = _features(views, image, text, corpus, tokenizer, recipe.model.max_tokens)
    image.head.fit_standardisation(images[: corpus.train])
    text.head.fit_standardisation(texts)
    yield FeatureStage(recipe, corpus, images, texts)
    yield CachedStage(recipe, corpus, tokenizer, views)
    if s.whole_epochs:
        yield PixelStage(recipe, corpus, tokenizer, image.trunk.side_px, s.whole_epochs)


def _features(
    views: Views, image: ImageEncoder, text: TextEncoder, corpus: Corpus, tokenizer: Tokenizer, max_tokens: int
) -> tuple[Tensor, Tensor]:
    """Features of the untouched trunks: whole photos `[photos, 1280]` and all captions `[captions, 384]`; cached."""
    file = views.folder / "features.npz"
    if not file.exists():
        log.info("features of the untouched trunks")
        whole = views.view(0)
        captions = [c for captions in corpus.captions for c in captions]
        text_features = np.zeros((len(captions), text.head.mean.numel()), np.float32)
        by_length = np.argsort([len(c) for c in captions], kind="stable")
        device = image.head.mean.device
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            parts = []
            for i in range(0, len(whole), 128):
                activations = torch.from_numpy(np.asarray(whole[i : i + 128])).permute(0, 3, 1, 2).float()
                parts.append(image.features(activations.to(device)).cpu().numpy())
            for i in range(0, len(captions), 256):
                part = by_length[i : i + 256]
                ids = tokenise(tokenizer, [captions[j] for j in part], max_tokens)
                text_features[part] = text.features(ids.to(device)).cpu().numpy()
        temporary = file.with_suffix(".tmp.npz")
        np.savez(temporary, images=np.concatenate(parts), texts=text_features)
        os.replace(temporary, file)
    with np.load(file) as stored:
        return torch.from_numpy(stored["images"]), torch.from_numpy(stored["texts"])
