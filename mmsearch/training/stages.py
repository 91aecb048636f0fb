"""What a batch holds, what the loop needs of a stage, and the first stage: heads alone on features computed once.

In: a corpus and a model. Out: batches, their encodings, the objective's terms.
Next: `trunk_stages.py`, where the trunks move too; `loop.py` drives any stage the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmsearch.data.texts import misspell, phrase
from mmsearch.evaluation.recall import Retrieval, retrieval
from mmsearch.models.vae import Encoding, MultimodalVAE
from mmsearch.training.corpus import Corpus
from mmsearch.training.objective import Contrast, Terms, objective
from mmsearch.training.recipe import Objective, Recipe
from mmsearch.training.step import Group, autocast

Rows = NDArray[np.int64]


class Batch(NamedTuple):
    """Inputs of one step: `n` photos and `t >= n` texts."""

    image: Tensor  # [n, ...]
    text: Tensor  # [t, ...]
    photo: Tensor  # [t] the row of `image` each text belongs to
    wording: Tensor  # [t] equal for equal captions
    rows: Tensor  # [n] the photos' places in the corpus


class Stage(Protocol):
    """What the loop needs of a stage."""

    name: str
    epochs: int
    precision: torch.dtype  # of the encoders' arithmetic; the objective is always in float32

    def groups(self, vae: MultimodalVAE) -> list[Group]:
        """The weights that move, by peak learning rate."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The steps of one epoch; the same epoch gives the same batches again."""

    def steps_per_epoch(self) -> int:
        """How many batches an epoch has, on average; for the learning rate."""

    def encode(self, vae: MultimodalVAE, batch: Batch) -> dict[str, Encoding]:
        """Posteriors of a batch: `image` with n rows, `text` with t rows."""

    def validate(self, vae: MultimodalVAE) -> Retrieval:
        """Recall on the validation photos with the stage's own way in."""


@dataclass(frozen=True)
class Sampler:
    """Samples photos and their captions. Shared by the stages."""

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

    precision = torch.float32

    def __init__(self, recipe: Recipe, corpus: Corpus, images: Tensor, texts: Tensor) -> None:
        self.name, self.epochs, self.recipe = "heads", recipe.schedule.warm_epochs, recipe
        self.sampler = Sampler(corpus, recipe.schedule.texts)
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
        for rows in self.sampler.order(rng, self.recipe.schedule.warm_batch):
            drawn, photo = self.sampler.captions(rows, rng)
            places = torch.tensor([int(self.first_text[r]) + c for r, c in drawn])
            wording = self.sampler.wording(drawn)
            yield Batch(self.images[rows], self.texts[places], photo, wording, torch.from_numpy(rows))

    def steps_per_epoch(self) -> int:
        """Of the warm batch's size."""
        return self.sampler.steps(self.recipe.schedule.warm_batch)

    def encode(self, vae: MultimodalVAE, batch: Batch) -> dict[str, Encoding]:
        """Through the heads."""
        return {
            "image": vae.encoders["image"].from_features(batch.image),  # type: ignore[operator]
            "text": vae.encoders["text"].from_features(batch.text),  # type: ignore[operator]
        }

    def validate(self, vae: MultimodalVAE) -> Retrieval:
        """On the validation photos' features."""
        rows, _, image_of_text = self.sampler.validation()
        places = slice(int(self.first_text[rows[0]]), int(self.first_text[rows[-1] + 1]))
        device = device_of(vae)
        with torch.no_grad():
            images = vae.encoders["image"].from_features(self.images[rows].to(device)).mu  # type: ignore[operator]
            texts = vae.encoders["text"].from_features(self.texts[places].to(device)).mu  # type: ignore[operator]
        return retrieval(images.cpu().numpy(), texts.cpu().numpy(), image_of_text)


def batch_terms(stage: Stage, vae: MultimodalVAE, contrast: Contrast, weights: Objective, batch: Batch) -> Terms:
    """The objective of one batch, which is moved to the model's device first."""
    device = device_of(vae)
    batch = Batch(*(part.to(device) for part in batch))
    with autocast(device, stage.precision):
        encodings = stage.encode(vae, batch)
    encodings = {modality: Encoding(*(part.float() for part in e)) for modality, e in encodings.items()}
    return objective(vae, contrast, weights, encodings, batch.photo, batch.wording)


def device_of(vae: MultimodalVAE) -> torch.device:
    """Where a model's weights are."""
    return next(vae.parameters()).device
