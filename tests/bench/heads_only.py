"""Heads alone on features of the untouched trunks: what the questions that need many trainings are asked with.

In: a recipe and the photos it names. Out: features of its corpus (computed once, in the recipe's cache), of any other
photos and texts, and heads trained on any part of them: a minute or two of one core where the whole recipe takes an
hour. What helps the heads need not help the fine-tuned trunk as much; it says which way. Next: `broadening.py`,
`preprocessing.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.data.augmentation_cache import AugmentationCache
from mmsearch.evaluation.recall import Retrieval
from mmsearch.models.checkpoint import Architecture, build
from mmsearch.models.tokens import tokenise
from mmsearch.models.vae import FeatureEncoder, ImageEncoder, MultimodalVAE, TextEncoder
from mmsearch.training.corpus import Corpus
from mmsearch.training.features import trunk_features
from mmsearch.training.loop import Loop
from mmsearch.training.objective import Contrast
from mmsearch.training.pretrained_init import pretrained
from mmsearch.training.recipe import Recipe
from mmsearch.training.stages import FeatureStage


@dataclass(frozen=True)
class Trunks:
    """The published trunks a recipe starts from, untouched."""

    image: ImageEncoder
    text: TextEncoder
    tokenizer: Tokenizer
    max_tokens: int

    @classmethod
    def load(cls, recipe: Recipe) -> Trunks:
        vae, _, tokenizer = pretrained(recipe.model)
        image, text = cast(ImageEncoder, vae.encoders["image"]), cast(TextEncoder, vae.encoders["text"])
        return cls(image.eval(), text.eval(), tokenizer, recipe.model.max_tokens)

    @property
    def side_px(self) -> int:
        return self.image.trunk.side_px

    def photos(self, squares: NDArray[np.uint8]) -> Tensor:
        """uint8 `[n, side, side, 3]` -> features `[n, 1280]`."""
        parts = []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for i in range(0, len(squares), 32):
                pixels = torch.from_numpy(squares[i : i + 32]).permute(0, 3, 1, 2).float()
                parts.append(self.image.features(self.image.trunk.early(pixels)))
        return torch.cat(parts)

    def strings(self, texts: Sequence[str]) -> Tensor:
        """Strings -> features `[n, 384]`."""
        found = torch.zeros(len(texts), self.text.head.mean.numel())
        by_length = np.argsort([len(t) for t in texts], kind="stable")
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for i in range(0, len(texts), 256):
                part = by_length[i : i + 256]
                ids = tokenise(self.tokenizer, [texts[j] for j in part], self.max_tokens)
                found[torch.from_numpy(part)] = self.text.features(ids)
        return found


@dataclass(frozen=True)
class Featured:
    """A corpus and the features of its photos `[photos, 1280]` and captions `[captions, 384]`, in its order."""

    corpus: Corpus
    images: Tensor
    texts: Tensor

    @classmethod
    def load(cls, recipe: Recipe, corpus: Corpus, trunks: Trunks) -> Featured:
        """From the recipe's cache, which a training run of it has filled, else computed."""
        views = AugmentationCache(
            Path(recipe.cache), corpus.photos, trunks.image.trunk, recipe.augmentation, recipe.seed
        )
        found = trunk_features(views, trunks.image, trunks.text, corpus, trunks.tokenizer, trunks.max_tokens)
        return cls(corpus, *found)

    def without(self, folders: Iterable[str], shares: float = 1.0) -> Featured:
        """Without the training photos of some data sets, the shares of the labelled ones multiplied."""
        gone, corpus = set(folders), self.corpus
        rows = [i for i, p in enumerate(corpus.photos) if i >= corpus.train or p.parent.parent.name not in gone]
        scale = np.where(np.arange(corpus.train) < corpus.sentences, 1.0, shares)
        first = np.concatenate([[0], np.cumsum([len(c) for c in corpus.captions])])
        texts = [t for row in rows for t in range(first[row], first[row + 1])]
        trained = [row for row in rows if row < corpus.train]
        kept = Corpus(
            photos=tuple(corpus.photos[row] for row in rows),
            captions=tuple(corpus.captions[row] for row in rows),
            shares=np.minimum(1.0, corpus.shares * scale)[trained],
            sentences=sum(row < corpus.sentences for row in rows),
            train=len(trained),
        )
        return Featured(kept, self.images[rows], self.texts[texts])

    def with_labels(self, labels: Sequence[str], images: Tensor, texts: Tensor, share: float) -> Featured:
        """With more labelled training rows: names `[n]`, features of photos `[n, 1280]` and of names `[n, 384]`."""
        corpus, n = self.corpus, len(labels)
        at, text_at = corpus.train, sum(map(len, corpus.captions[: corpus.train]))
        more = replace(
            corpus,
            photos=(*corpus.photos[:at], *(Path(f"{i}") for i in range(n)), *corpus.photos[at:]),
            captions=(*corpus.captions[:at], *((label,) for label in labels), *corpus.captions[at:]),
            shares=np.concatenate([corpus.shares, np.full(n, share)]),
            train=at + n,
        )
        return Featured(
            more,
            torch.cat([self.images[:at], images, self.images[at:]]),
            torch.cat([self.texts[:text_at], texts, self.texts[text_at:]]),
        )


@dataclass(frozen=True)
class Heads:
    """Trained heads and what they reach on the validation photos."""

    vae: MultimodalVAE
    validation: Retrieval

    def photos(self, features: Tensor) -> NDArray[np.float32]:
        """Features `[n, 1280]` -> means `[n, d]`."""
        return self._means("image", features)

    def strings(self, features: Tensor) -> NDArray[np.float32]:
        """Features `[n, 384]` -> means `[n, d]`."""
        return self._means("text", features)

    def _means(self, modality: str, features: Tensor) -> NDArray[np.float32]:
        with torch.no_grad():
            encoder = cast(FeatureEncoder, self.vae.encoders[modality])
            means: NDArray[np.float32] = encoder.from_features(features).mu.numpy()
        return means


def contrast_alone(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with heads trained by contrast, one caption a photo: a quarter of the whole objective's time."""
    return replace(
        recipe,
        objective=replace(recipe.objective, elbo=0.0),
        schedule=replace(recipe.schedule, warm_epochs=epochs, texts=1),
    )


def train_heads(recipe: Recipe, data: Featured, seed: int) -> Heads:
    """The recipe's stage of heads alone on `data`, from one seed; the best epoch by validation."""
    recipe = replace(recipe, seed=seed)
    torch.manual_seed(seed)
    architecture = Architecture(
        kind="backbone",
        latent_dim=recipe.model.latent_dim,
        hidden_dim=recipe.model.hidden_dim,
        image_features=data.images.shape[1],
        text_features=data.texts.shape[1],
    )
    vae, corpus = build(architecture, recipe.model.dropout), data.corpus
    trained_texts = sum(map(len, corpus.captions[: corpus.train]))
    cast(FeatureEncoder, vae.encoders["image"]).head.fit_standardisation(data.images[: corpus.train])
    cast(FeatureEncoder, vae.encoders["text"]).head.fit_standardisation(data.texts[:trained_texts])
    stage = FeatureStage(recipe, corpus, data.images, data.texts)
    with tempfile.TemporaryDirectory() as folder:
        Loop(recipe, vae, Contrast(recipe.objective.temperature), stage, Path(folder)).run(resume=False)
    return Heads(vae.eval(), stage.validate(vae))
