"""Heads fitted a little further on pairs of features: the full objective, from where the heads are, not far from there.

    old heads -> a few epochs of the objective -> new heads
    kept = (1 - mix) old + mix new            a small mix with nearly the best recall on pairs the epochs never saw

Averaging the weights of a model before and after fine-tuning keeps what it knew and most of what it learned (Wortsman
et al. 2022, "Robust fine-tuning of zero-shot models", https://arxiv.org/abs/2109.01903); with mix 0 nothing changes, so
that captions which teach nothing choose that. In: features `[n, f]` and `[t, g]` of trunks that stay as they are. Out:
the heads' weights. Next: `tune.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsearch.errors import TrainingError
from mmsearch.evaluation.recall import best_ranks
from mmsearch.models.vae import MultimodalVAE
from mmsearch.training.corpus import Corpus
from mmsearch.training.objective import Contrast
from mmsearch.training.recipe import Objective, Recipe, Schedule
from mmsearch.training.stages import FeatureStage, batch_terms
from mmsearch.training.step import Optimiser, WarmupCosine, freeze_others
from mmsearch.tuning.pairs import BoolArray, Pair, held_out, wording

log = logging.getLogger(__name__)

Heads = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """How the heads are fitted.

    Attributes:
        epochs: over the pairs; more where they would be fewer than `steps` steps.
        steps: at least.
        batch: photos a step, at most.
        texts: captions of a photo in one step.
        rate: AdamW's peak learning rate; a warm-up, then a cosine to zero.
        dropout: on the features and in the heads.
        mixes: parts of the way from the old heads to the new ones that are tried.
        folds: divisions of the pairs by which the mix is chosen.
        objective: weights of the objective's terms.
    """

    epochs: int = 10
    steps: int = 30
    batch: int = 256
    texts: int = 2
    rate: float = 3e-4
    dropout: float = 0.3
    mixes: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    folds: int = 3
    objective: Objective = field(default_factory=lambda: Objective(eta=400.0))


@dataclass(frozen=True)
class Features:
    """Features of pairs by trunks that stay as they are: photos `[n, f]`, their captions in order `[t, g]`."""

    pairs: tuple[Pair, ...]
    images: Tensor
    texts: Tensor

    @property
    def owner(self) -> NDArray[np.int64]:
        """The photo of each caption `[t]`."""
        return np.repeat(np.arange(len(self.pairs)), [len(pair.captions) for pair in self.pairs])

    def only(self, rows: NDArray[np.int64]) -> Features:
        """Some of the pairs, in the order of `rows`."""
        owner = self.owner
        texts = np.concatenate([np.flatnonzero(owner == row) for row in rows])
        return Features(tuple(self.pairs[row] for row in rows), self.images[rows], self.texts[texts])


def heads_of(vae: MultimodalVAE) -> Heads:
    """The weights that tuning moves: both heads and the decoders; copies."""
    return {name: p.detach().clone() for name, p in vae.named_parameters() if _is_head(name)}


def set_heads(vae: MultimodalVAE, heads: Mapping[str, Tensor]) -> None:
    """Put heads into the model."""
    vae.load_state_dict(heads, strict=False)


def blend(old: Heads, new: Heads, mix: float) -> Heads:
    """`(1 - mix) old + mix new`, weight by weight."""
    return {name: torch.lerp(old[name], new[name], mix) for name in old}


def fit(vae: MultimodalVAE, features: Features, temperature: float, settings: Settings) -> Heads:
    """New heads from the model's own ones; the model is left as it was.

    Raises:
        TrainingError: the loss is not a number.
    """
    old = heads_of(vae)
    try:
        _descend(vae, features, temperature, settings)
        return heads_of(vae)
    finally:
        set_heads(vae, old)
        vae.eval()


def choose_mix(vae: MultimodalVAE, features: Features, temperature: float, settings: Settings) -> float:
    """The smallest mix whose recall, over `folds` divisions of the pairs, is within one standard error of the best.

    The one-standard-error rule (Breiman et al. 1984, s. 3.4.3, https://doi.org/10.1201/9781315139470): every step away
    from the old heads costs a little of what is searched for in other words than these captions'. No step at all is
    chosen where that is the best.
    """
    old = heads_of(vae)
    scores: list[list[NDArray[np.float64]]] = [[] for _ in settings.mixes]
    for fold in range(settings.folds):
        held = held_out(features.pairs, 1 / (settings.folds + 1), 10, salt=f"fold {fold}")
        new = fit(vae, features.only(np.flatnonzero(~held)), temperature, settings)
        for i, mix in enumerate(settings.mixes):
            scores[i].append(judge(vae, features, held, blend(old, new, mix)))
        log.info("fold %d: mean recall by mix %s", fold, [round(float(found[-1].mean()), 1) for found in scores])
    return _within_one_error([np.concatenate(found) for found in scores], settings.mixes)


def _within_one_error(scores: list[NDArray[np.float64]], mixes: tuple[float, ...]) -> float:
    """The rule over each mix's scores `[h]` of the same photos."""
    best = int(np.argmax([found.mean() for found in scores]))
    if not mixes[best]:
        return mixes[best]
    for mix, found in sorted(zip(mixes, scores, strict=True), key=lambda one: one[0]):
        lost = scores[best] - found
        if mix and lost.mean() <= lost.std(ddof=1) / np.sqrt(len(lost)):
            return mix
    return mixes[best]


def judge(vae: MultimodalVAE, features: Features, held: BoolArray, heads: Heads) -> NDArray[np.float64]:
    """What each held-out photo adds to the mean of the six recalls, percent `[h]`; their mean is that mean.

    The held-out photos and captions ask; all photos and captions of `features` are searched, so that a few held-out
    photos do not make the search easy. What shares the words of a caption is as right as its own photo.
    """
    old = heads_of(vae)
    try:
        set_heads(vae, heads)
        images, texts = means(vae, features)
    finally:
        set_heads(vae, old)
    owner = features.owner
    wordings = [wording(caption) for pair in features.pairs for caption in pair.captions]
    texts_of: dict[str, list[int]] = {}
    for text, words in enumerate(wordings):
        texts_of.setdefault(words, []).append(text)
    asked = np.flatnonzero(held[owner])  # captions of held-out photos
    photos = np.flatnonzero(held)
    right_photos = [np.unique(owner[texts_of[wordings[text]]]) for text in asked]
    right_texts = [
        np.unique(np.concatenate([texts_of[wordings[text]] for text in np.flatnonzero(owner == photo)]))
        for photo in photos
    ]
    to_image, to_text = best_ranks(texts[asked], images, right_photos), best_ranks(images[photos], texts, right_texts)
    hits = np.stack([to_image <= k for k in (1, 5, 10)]).mean(0)  # [a]
    by_text = np.array([hits[owner[asked] == photo].sum() for photo in photos]) * len(photos) / len(asked)
    by_image = np.stack([to_text <= k for k in (1, 5, 10)]).mean(0)
    scores: NDArray[np.float64] = 50.0 * (by_text + by_image)
    return scores


def means(vae: MultimodalVAE, features: Features) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Posterior means of photos `[n, d]` and captions `[t, d]`."""
    vae.eval()
    with torch.no_grad():
        images = vae.encoders["image"].from_features(features.images).mu  # type: ignore[operator]
        texts = vae.encoders["text"].from_features(features.texts).mu  # type: ignore[operator]
    return images.cpu().numpy(), texts.cpu().numpy()


def _descend(vae: MultimodalVAE, features: Features, temperature: float, settings: Settings) -> None:
    stage = _stage(features, settings)
    contrast = Contrast(temperature).to(features.images.device)  # its temperature stays
    steps, step = stage.epochs * stage.steps_per_epoch(), 0
    groups, schedule = stage.groups(vae), WarmupCosine(steps, warmup=0.1, start=0.01 * steps)
    freeze_others(vae, groups)
    optimiser = Optimiser(groups, schedule, 0.0, lambda what: TrainingError(f"{what}; nothing was changed"))
    _set_dropout(vae, settings.dropout)
    vae.train()
    for epoch in range(stage.epochs):
        torch.manual_seed(epoch)
        for batch in stage.batches(epoch):
            optimiser.step(batch_terms(stage, vae, contrast, settings.objective, batch).total, step)
            step += 1


def _set_dropout(vae: MultimodalVAE, rate: float) -> None:
    for module in vae.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate


def _stage(features: Features, settings: Settings) -> FeatureStage:
    """Batches of equal size over all pairs."""
    n = len(features.pairs)
    batches = math.ceil(n / settings.batch)
    epochs = max(settings.epochs, math.ceil(settings.steps / batches))
    schedule = Schedule(warm_epochs=epochs, warm_batch=n // batches, texts=settings.texts, rate_warm=settings.rate)
    recipe = Recipe("tune", (), "", objective=settings.objective, schedule=schedule)
    photos, captions = tuple(p.path for p in features.pairs), tuple(p.captions for p in features.pairs)
    corpus = Corpus(photos, captions, np.ones(n), sentences=n, train=n)
    return FeatureStage(recipe, corpus, features.images, features.texts)


def _is_head(name: str) -> bool:
    return ".head." in name or name.startswith("decoders.")
