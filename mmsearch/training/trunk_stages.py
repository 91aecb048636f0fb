"""The stages in which the trunks move: on cached activations, then on freshly augmented photos.

    CachedStage    late blocks, transformer and heads, on cached augmented views   (`pretrained`)
    PixelStage     from stride 16 on (`pretrained`, last), or everything (`scratch`)

In: a corpus, a tokenizer and a model. Out: batches and encodings, in bfloat16. Next: `loop.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.data.augmentation_cache import AugmentationCache, augment
from mmsearch.data.texts import drop_tokens
from mmsearch.evaluation.recall import Retrieval, retrieval
from mmsearch.inference.preprocess import square
from mmsearch.models.minilm import PAD_ID
from mmsearch.models.tokens import tokenise
from mmsearch.models.vae import Encoding, ImageEncoder, MultimodalVAE, TextEncoder
from mmsearch.training.corpus import Corpus
from mmsearch.training.recipe import Recipe
from mmsearch.training.stages import Batch, Rows, Sampler, device_of
from mmsearch.training.step import Group, autocast


class _TokenStage:
    """What the stages with real texts share: captions to ids, validation, batches prepared one ahead."""

    precision = torch.bfloat16

    def __init__(self, recipe: Recipe, corpus: Corpus, tokenizer: Tokenizer) -> None:
        self.recipe, self.corpus, self.tokenizer = recipe, corpus, tokenizer
        self.sampler = Sampler(corpus, recipe.schedule.texts)
        self._salt = 0

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Photos and token ids; the next batch is prepared while this one is trained on."""
        rng = np.random.default_rng((self.recipe.seed, self._salt, epoch))
        steps = self.sampler.order(rng, self.recipe.schedule.batch)
        prepare = partial(self._batch, epoch)
        with ThreadPoolExecutor(1) as ahead:
            pending = ahead.submit(prepare, steps[0], 0) if steps else None
            for i in range(len(steps)):
                assert pending is not None
                batch = pending.result()
                pending = ahead.submit(prepare, steps[i + 1], i + 1) if i + 1 < len(steps) else None
                yield batch

    def steps_per_epoch(self) -> int:
        """Of the main batch's size."""
        return self.sampler.steps(self.recipe.schedule.batch)

    def _batch(self, epoch: int, rows: Rows, step: int) -> Batch:
        rng = np.random.default_rng((self.recipe.seed, self._salt, epoch, step))
        drawn, photo = self.sampler.captions(rows, rng)
        s = self.recipe.schedule
        ids = tokenise(self.tokenizer, self.sampler.strings(drawn, rng, s.typos), self.recipe.model.max_tokens)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        ids = drop_tokens(ids, s.token_dropout, generator)
        return Batch(self._images(rows, epoch, rng), ids, photo, self.sampler.wording(drawn), torch.from_numpy(rows))

    def _images(self, rows: Rows, epoch: int, rng: np.random.Generator) -> Tensor:
        raise NotImplementedError

    def _groups(self, vae: MultimodalVAE, trunk: list[nn.Parameter], factor: float = 1.0) -> list[Group]:
        """A part of the trunk, the transformer's layers, and all that stands on both, each at its own rate."""
        image, text = cast(ImageEncoder, vae.encoders["image"]), cast(TextEncoder, vae.encoders["text"])
        heads, s = [image.pool, image.head, text.pool, text.head, vae.decoders], self.recipe.schedule
        return [
            Group(trunk, s.rate_trunk * factor),
            Group(text.transformer.layer_parameters(), s.rate_text * factor),
            Group([p for m in heads for p in m.parameters()], s.rate_heads * factor),
        ]

    def _validate(self, vae: MultimodalVAE, image: Callable[[Rows], Tensor]) -> Retrieval:
        rows, captions, image_of_text = self.sampler.validation()
        by_length = np.argsort([len(c) for c in captions], kind="stable")
        texts = np.zeros((len(captions), self.recipe.model.latent_dim), np.float32)
        device = device_of(vae)
        with torch.no_grad(), autocast(device, self.precision):
            images = torch.cat([image(rows[i : i + 64]) for i in range(0, len(rows), 64)]).float().cpu().numpy()
            for i in range(0, len(captions), 256):
                part = by_length[i : i + 256]
                ids = tokenise(self.tokenizer, [captions[j] for j in part], self.recipe.model.max_tokens)
                texts[part] = vae.encoders["text"](ids.to(device)).mu.float().cpu().numpy()
        return retrieval(images, texts, image_of_text)


class CachedStage(_TokenStage):
    """Late blocks, transformer layers, pooling and heads, on cached activations of a few augmented views."""

    def __init__(self, recipe: Recipe, corpus: Corpus, tokenizer: Tokenizer, views: AugmentationCache) -> None:
        super().__init__(recipe, corpus, tokenizer)
        self.name, self.epochs, self._salt = "late", recipe.schedule.epochs, 2
        most = max(recipe.schedule.views)
        self.views = [views.view(0)]
        for v in range(1, most + 1):
            self.views.append(views.view(v, corpus.train if v <= recipe.schedule.views[1] else corpus.sentences))

    def groups(self, vae: MultimodalVAE) -> list[Group]:
        """Everything after the cut; the word embeddings stay."""
        return self._groups(vae, cast(ImageEncoder, vae.encoders["image"]).trunk.late_parameters())

    def encode(self, vae: MultimodalVAE, batch: Batch) -> dict[str, Encoding]:
        """From the cut on."""
        image = cast(ImageEncoder, vae.encoders["image"])
        return {"image": image.from_activations(batch.image), "text": by_length(vae.encoders["text"], batch.text)}

    def validate(self, vae: MultimodalVAE) -> Retrieval:
        """On the cached whole photos."""
        image = cast(ImageEncoder, vae.encoders["image"])
        device = device_of(vae)
        return self._validate(vae, lambda rows: image.from_activations(_activations(self.views[0][rows]).to(device)).mu)

    def _images(self, rows: Rows, epoch: int, rng: np.random.Generator) -> Tensor:
        kind = 0 if rows[0] < self.corpus.sentences else 1
        view = rng.integers(self.recipe.schedule.views[kind] + 1, size=len(rows))
        return _activations(np.stack([self.views[v][row] for v, row in zip(view, rows, strict=True)]))


class PixelStage(_TokenStage):
    """Photos augmented anew each time. From scratch every weight moves.

    Of a pretrained model the trunk's first blocks stay: they hold its plainest filters, few of its weights, and most of
    the memory and time of a step. The word embeddings stay too.
    """

    def __init__(self, recipe: Recipe, corpus: Corpus, tokenizer: Tokenizer, side_px: int, epochs: int) -> None:
        super().__init__(recipe, corpus, tokenizer)
        self.epochs, self._salt, self.side_px = epochs, 3, side_px
        self.name = "deep" if recipe.model.architecture == "pretrained" else "whole"

    def groups(self, vae: MultimodalVAE) -> list[Group]:
        """The weights that move; a pretrained model's parts keep their own rates."""
        image, s = vae.encoders["image"], self.recipe.schedule
        if not isinstance(image, ImageEncoder):
            return [Group(list(vae.parameters()), s.rate_heads)]
        return self._groups(vae, image.trunk.middle_parameters() + image.trunk.late_parameters(), s.deep_rate)

    def encode(self, vae: MultimodalVAE, batch: Batch) -> dict[str, Encoding]:
        """From pixels on."""
        return {"image": vae.encoders["image"](batch.image), "text": by_length(vae.encoders["text"], batch.text)}

    def validate(self, vae: MultimodalVAE) -> Retrieval:
        """On the whole validation photos."""
        device = device_of(vae)
        return self._validate(vae, lambda rows: vae.encoders["image"](_pixels(self._squares(rows)).to(device)).mu)

    def _squares(self, rows: Rows) -> NDArray[np.uint8]:
        return np.stack([square(_open(self.corpus, row), self.side_px) for row in rows])

    def _images(self, rows: Rows, epoch: int, rng: np.random.Generator) -> Tensor:
        how = self.recipe.augmentation
        views = [augment(_open(self.corpus, row), self.side_px, how, rng) for row in rows]
        return _pixels(np.stack(views))


def by_length(encoder: nn.Module, ids: Tensor) -> Encoding:
    """Posteriors of captions `[t, longest]`, the short ones apart from the long: half of a mixed batch is padding."""
    if not isinstance(encoder, TextEncoder):
        encoding: Encoding = encoder(ids)
        return encoding
    ends = ((ids != PAD_ID) * torch.arange(1, ids.shape[1] + 1, device=ids.device)).amax(1)  # [t]
    order = ends.argsort()
    features = [encoder.features(ids[rows, : int(ends[rows].max())]) for rows in order.chunk(4)]
    return encoder.from_features(torch.cat(features)[order.argsort()])


def _open(corpus: Corpus, row: int) -> Image.Image:
    with Image.open(corpus.photos[row]) as image:
        return image.convert("RGB")


def _pixels(squares: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(squares).permute(0, 3, 1, 2)  # uint8 [n, 3, side, side], channels last in memory


def _activations(stored: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(np.asarray(stored)).permute(0, 3, 1, 2).float()  # [n, c, h, w], channels last in memory
