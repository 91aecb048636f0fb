"""The stages of a run: what a batch holds, which weights move, how the encoders are entered.

    FeatureStage   heads alone, on features computed once        (`pretrained` warm-up, `backbone`)
    CachedStage    late blocks, transformer, heads on cached views   (`pretrained`)
    PixelStage     freshly augmented photos: from stride 16 on       (`pretrained` last), or everything (`scratch`)

In: a corpus and a model. Out: batches and encodings. Next: `loop.py` drives any of them the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.data.augmentation_cache import AugmentationCache, augment
from mmsearch.data.texts import drop_tokens, misspell, phrase
from mmsearch.evaluation.recall import Retrieval, retrieval
from mmsearch.inference.preprocess import square
from mmsearch.models.minilm import PAD_ID
from mmsearch.models.tokens import tokenise
from mmsearch.models.vae import Encoding, ImageEncoder, MultimodalVAE, TextEncoder
from mmsearch.training.corpus import Corpus
from mmsearch.training.recipe import Recipe

Rows = NDArray[np.int64]


class Batch(NamedTuple):
    """Inputs of one step: `n` photos and `t >= n` texts."""

    image: Tensor  # [n, ...]
    text: Tensor  # [t, ...]
    photo: Tensor  # [t] the row of `image` each text belongs to
    wording: Tensor  # [t] equal for equal captions
    rows: Tensor  # [n] the photos' places in the corpus


class Group(NamedTuple):
    """Weights that share a peak learning rate."""

    parameters: list[nn.Parameter]
    rate: float


class Stage(Protocol):
    """What the loop needs of a stage."""

    name: str
    epochs: int

    def groups(self, vae: MultimodalVAE) -> list[Group]:
        """The weights that move, by learning rate."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The steps of one epoch; the same epoch gives the same batches again."""

    def steps_per_epoch(self) -> int:
        """How many batches an epoch has, on average; for the learning rate."""

    def encode(self, vae: MultimodalVAE, batch: Batch) -> dict[str, Encoding]:
        """Posteriors of a batch: `image` with n rows, `text` with t rows."""

    def validate(self, vae: MultimodalVAE) -> Retrieval:
        """Recall on the validation photos with the stage's own way in."""


@dataclass(frozen=True)
class Draw:
    """Draws captions for photos. Shared by the stages."""

    corpus: Corpus
    texts: int

    def captions(self, rows: Rows, rng: np.random.Generator) -> tuple[list[tuple[int, int]], Tensor]:
        """(photo, caption) places of the captions drawn for `rows`, and for each the row of the batch `[t]`."""
        drawn, photo = [], []
        for at, row in enumerate(rows):
            count = len(self.corpus.captions[row])
            for c in rng.permutation(count)[: self.texts]:
                drawn.append((int(row), int(c)))
                photo.append(at)
        return drawn, torch.tensor(photo)

    def wording(self, drawn: Sequence[tuple[int, int]]) -> Tensor:
        """A number for each caption, equal for equal words `[t]`."""
        return torch.tensor([hash(self.corpus.captions[r][c].lower().strip()) for r, c in drawn])

    def strings(self, drawn: Sequence[tuple[int, int]], rng: np.random.Generator, typos: float) -> list[str]:
        """The captions as strings; labels are put into everyday phrases, a part of all is misspelt."""
        captions = self.corpus.captions
        texts = [captions[r][c] if r < self.corpus.sentences else phrase(captions[r][c], rng) for r, c in drawn]
        return [misspell(text, rng) if rng.random() < typos else text for text in texts]

    def order(self, rng: np.random.Generator, batch: int) -> list[Rows]:
        """The photos of one epoch, cut into batches of one kind each, in random order."""
        steps = []
        for rows in self.corpus.epoch(rng):
            whole = len(rows) // batch * batch or len(rows)  # a short last batch would have easy negatives
            steps += [rows[i : i + batch] for i in range(0, whole, batch)]
        return [steps[i] for i in rng.permutation(len(steps)) if len(steps[i]) > 1]

    def steps(self, batch: int) -> int:
        """How many batches an epoch has, on average."""
        shares, sentences = self.corpus.shares, self.corpus.sentences
        counts = (shares[:sentences].sum(), shares[sentences:].sum())
        return max(1, int(sum(max(1.0, float(n) // batch) for n in counts if n)))

    def validation(self) -> tuple[Rows, list[str], Rows]:
        """The validation photos' rows, all their captions, and for each caption its photo's place among the rows."""
        rows = np.arange(self.corpus.train, len(self.corpus.photos))
        pairs = [(i, caption) for i, row in enumerate(rows) for caption in self.corpus.captions[row]]
        return rows, [caption for _, caption in pairs], np.array([i for i, _ in pairs])


class FeatureStage:
    """Heads alone on features `[photos, f]` and `[captions, g]`, computed once."""

    def __init__(self, recipe: Recipe, corpus: Corpus, images: Tensor, texts: Tensor) -> None:
        self.name, self.epochs, self.recipe = "heads", recipe.schedule.warm_epochs, recipe
        self.draw = Draw(corpus, recipe.schedule.texts)
        self.images, self.texts = images, texts
        self.first_text = np.concatenate([[0], np.cumsum([len(c) for c in corpus.captions])])

    def groups(self, vae: MultimodalVAE) -> list[Group]:
        """Heads and decoders."""
        heads = [cast(nn.Module, vae.encoders[m].head) for m in ("image", "text")]
        modules: list[nn.Module] = [*heads, vae.decoders]
        return [Group([p for m in modules for p in m.parameters()], self.recipe.schedule.rate_warm)]

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Rows of the feature matrices."""
        rng = np.random.default_rng((self.recipe.seed, 1, epoch))
        for rows in self.draw.order(rng, self.recipe.schedule.warm_batch):
            drawn, photo = self.draw.captions(rows, rng)
            places = torch.tensor([int(self.first_text[r]) + c for r, c in drawn])
            wording = self.draw.wording(drawn)
            yield Batch(self.images[rows], self.texts[places], photo, wording, torch.from_numpy(rows))

    def steps_per_epoch(self) -> int:
        """Of the warm batch's size."""
        return self.draw.steps(self.recipe.schedule.warm_batch)

    def encode(self, vae: MultimodalVAE, batch: Batch) -> dict[str, Encoding]:
        """Through the heads."""
        return {
            "image": vae.encoders["image"].from_features(batch.image),  # type: ignore[operator]
            "text": vae.encoders["text"].from_features(batch.text),  # type: ignore[operator]
        }

    def validate(self, vae: MultimodalVAE) -> Retrieval:
        """On the validation photos' features."""
        rows, _, image_of_text = self.draw.validation()
        places = slice(int(self.first_text[rows[0]]), int(self.first_text[rows[-1] + 1]))
        device = _device(vae)
        with torch.no_grad():
            images = vae.encoders["image"].from_features(self.images[rows].to(device)).mu  # type: ignore[operator]
            texts = vae.encoders["text"].from_features(self.texts[places].to(device)).mu  # type: ignore[operator]
        return retrieval(images.cpu().numpy(), texts.cpu().numpy(), image_of_text)


class _TokenStage:
    """What the stages with real texts share: captions to ids, validation, batches prepared one ahead."""

    def __init__(self, recipe: Recipe, corpus: Corpus, tokenizer: Tokenizer) -> None:
        self.recipe, self.corpus, self.tokenizer = recipe, corpus, tokenizer
        self.draw = Draw(corpus, recipe.schedule.texts)
        self._salt = 0

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Photos and token ids; the next batch is prepared while this one is trained on."""
        rng = np.random.default_rng((self.recipe.seed, self._salt, epoch))
        steps = self.draw.order(rng, self.recipe.schedule.batch)
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
        return self.draw.steps(self.recipe.schedule.batch)

    def _batch(self, epoch: int, rows: Rows, step: int) -> Batch:
        rng = np.random.default_rng((self.recipe.seed, self._salt, epoch, step))
        drawn, photo = self.draw.captions(rows, rng)
        s = self.recipe.schedule
        ids = tokenise(self.tokenizer, self.draw.strings(drawn, rng, s.typos), self.recipe.model.max_tokens)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        ids = drop_tokens(ids, s.token_dropout, generator)
        return Batch(self._images(rows, epoch, rng), ids, photo, self.draw.wording(drawn), torch.from_numpy(rows))

    def _images(self, rows: Rows, epoch: int, rng: np.random.Generator) -> Tensor:
        raise NotImplementedError

    def _validate(self, vae: MultimodalVAE, image: Callable[[Rows], Tensor]) -> Retrieval:
        rows, captions, image_of_text = self.draw.validation()
        by_length = np.argsort([len(c) for c in captions], kind="stable")
        texts = np.zeros((len(captions), self.recipe.model.latent_dim), np.float32)
        device = _device(vae)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
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
        image, text = cast(ImageEncoder, vae.encoders["image"]), cast(TextEncoder, vae.encoders["text"])
        s = self.recipe.schedule
        heads = [image.pool, image.head, text.pool, text.head, vae.decoders]
        return [
            Group(image.trunk.late_parameters(), s.rate_trunk),
            Group(text.transformer.layer_parameters(), s.rate_text),
            Group([p for m in heads for p in m.parameters()], s.rate_heads),
        ]

    def encode(self, vae: MultimodalVAE, batch: Batch) -> dict[str, Encoding]:
        """From the cut on."""
        image = cast(ImageEncoder, vae.encoders["image"])
        return {"image": image.from_activations(batch.image), "text": by_length(vae.encoders["text"], batch.text)}

    def validate(self, vae: MultimodalVAE) -> Retrieval:
        """On the cached whole photos."""
        image = cast(ImageEncoder, vae.encoders["image"])
        device = _device(vae)
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
        image, text, s = vae.encoders["image"], vae.encoders["text"], self.recipe.schedule
        if not isinstance(image, ImageEncoder) or not isinstance(text, TextEncoder):
            return [Group(list(vae.parameters()), s.rate_heads)]
        heads = [image.pool, image.head, text.pool, text.head, vae.decoders]
        return [
            Group(image.trunk.middle_parameters() + image.trunk.late_parameters(), s.rate_trunk * s.deep_rate),
            Group(text.transformer.layer_parameters(), s.rate_text * s.deep_rate),
            Group([p for m in heads for p in m.parameters()], s.rate_heads * s.deep_rate),
        ]

    def encode(self, vae: MultimodalVAE, batch: Batch) -> dict[str, Encoding]:
        """From pixels on."""
        return {"image": vae.encoders["image"](batch.image), "text": by_length(vae.encoders["text"], batch.text)}

    def validate(self, vae: MultimodalVAE) -> Retrieval:
        """On the whole validation photos."""
        device = _device(vae)
        return self._validate(vae, lambda rows: vae.encoders["image"](_pixels(self._squares(rows)).to(device)).mu)

    def _squares(self, rows: Rows) -> NDArray[np.uint8]:
        return np.stack([square(_open(self.corpus, row), self.side_px) for row in rows])

    def _images(self, rows: Rows, epoch: int, rng: np.random.Generator) -> Tensor:
        how = self.recipe.augmentation
        views = [augment(_open(self.corpus, row), self.side_px, how, rng) for row in rows]
        return _pixels(np.stack(views))


def _device(vae: MultimodalVAE) -> torch.device:
    return next(vae.parameters()).device


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
