"""Self-distillation, the last stage of a pretrained model: misspelt captions get the posteriors of the spelt ones.

In: a model that is otherwise trained, with the vocabulary it ships with, and its captions. Out: the same model, its
text encoder moved a little, word embeddings included. Photos take no part: the encoder learns from itself as it was
(self-distillation), by the divergence from its posterior of the caption as written to its posterior of the caption
misspelt. A part of the captions stays as written, so that those keep their place. The longer it learns, the better it
reads slips and the worse single names; the mean of the weights after each cycle of the learning rate (stochastic weight
averaging, Izmailov et al. 2018, https://arxiv.org/abs/1803.05407) keeps more of both than either end. Next: `run.py`
writes the model.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.data.texts import misspell, phrase
from mmsearch.errors import CheckpointError, TrainingError
from mmsearch.models.checkpoint import load_tensors, save_tensors
from mmsearch.models.gaussian import kl_between
from mmsearch.models.tokens import tokenise
from mmsearch.models.vae import MultimodalVAE, TextEncoder
from mmsearch.training.corpus import Corpus
from mmsearch.training.recipe import Recipe
from mmsearch.training.step import Group, Optimiser, WarmupCosine, autocast, freeze_others
from mmsearch.training.trunk_stages import by_length

log = logging.getLogger(__name__)

_AS_WRITTEN = 0.25  # part of the captions
_SLIPS = 0.3  # part of a caption's words
_SHORTEST = 3  # letters of a word that a slip may hit


class SelfDistillation:
    """Teaches a text encoder its own posteriors for misspelt captions.

    Args:
        recipe: `typo_cycles`, `typo_epochs`, batch, rates and seed.
        corpus: whose training captions are read; labels in everyday phrases.
        tokenizer: of the text encoder.
    """

    precision = torch.bfloat16

    def __init__(self, recipe: Recipe, corpus: Corpus, tokenizer: Tokenizer) -> None:
        self.recipe, self.corpus, self.tokenizer = recipe, corpus, tokenizer
        self.captions = [(row, caption) for row in range(corpus.train) for caption in corpus.captions[row]]

    def run(self, vae: MultimodalVAE, folder: Path, resume: bool) -> None:
        """Move the text encoder of `vae`, in place; a stage of minutes, which is not taken up in its middle.

        Raises:
            CheckpointError: an earlier result of this stage that has another vocabulary.
            TrainingError: where the loss is not a number.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "text.safetensors"
        text = cast(TextEncoder, vae.encoders["text"])
        if resume and file.exists():
            try:
                text.load_state_dict(load_tensors(file))
            except RuntimeError as error:  # torch lists every row that does not fit
                raise CheckpointError(f"{file} is of another vocabulary; delete {folder} and --resume again") from error
            return
        ends = []
        for cycle in range(self.recipe.schedule.typo_cycles):
            self._train(text, cycle)
            ends.append({name: value.clone() for name, value in text.state_dict().items()})
        text.load_state_dict({name: torch.stack([end[name] for end in ends]).mean(0) for name in ends[0]})
        save_tensors(file, {name: value.clone() for name, value in text.state_dict().items()})

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Token ids of captions as written and as misspelt, each `[n, t]`; all training captions once."""
        rng = np.random.default_rng((self.recipe.seed, 4, epoch))
        order, size = rng.permutation(len(self.captions)), self.recipe.schedule.batch
        for at in range(0, len(order), size):
            drawn = [self.captions[i] for i in order[at : at + size]]
            written = [phrase(c, rng) if row >= self.corpus.sentences else c for row, c in drawn]
            typed = [c if rng.random() < _AS_WRITTEN else misspell(c, rng, _SLIPS, _SHORTEST) for c in written]
            yield self._ids(written), self._ids(typed)

    def _train(self, text: TextEncoder, cycle: int) -> None:
        """One cycle: from what the encoder is now, which is its teacher, with the learning rate up and down once."""
        s = self.recipe.schedule
        teacher = copy.deepcopy(text.eval()).requires_grad_(False)  # neither with dropout: they are compared
        heads = [*text.pool.parameters(), *text.head.parameters()]
        # only here: a slip leaves pieces of words that were seldom seen before
        words = [cast(nn.Parameter, text.transformer.words.weight)]
        groups = [
            Group([*text.transformer.layer_parameters(), *words], 2 * s.rate_text),
            Group(heads, s.rate_heads / 3),
        ]
        freeze_others(text, groups)
        schedule = WarmupCosine(s.typo_epochs * math.ceil(len(self.captions) / s.batch))
        step = 0
        optimiser = Optimiser(
            groups,
            schedule,
            s.weight_decay,
            lambda what: TrainingError(f"{what} in stage typos, step {step}; lower rate_text"),
        )
        for epoch in range(cycle * s.typo_epochs, (cycle + 1) * s.typo_epochs):
            total, count = 0.0, 0
            for written, misspelt in self.batches(epoch):
                loss = self._divergence(teacher, text, written, misspelt)
                optimiser.step(loss, step)
                total, count, step = total + loss.item(), count + 1, step + 1
                if count % 20 == 0:
                    log.info("typos epoch %d step %d: KL %.3f nats", epoch, count, total / count)

    def _divergence(self, teacher: TextEncoder, text: TextEncoder, written: Tensor, misspelt: Tensor) -> Tensor:
        """`KL(teacher(written) || student(misspelt))`, nats, mean over the captions."""
        device = next(text.parameters()).device
        with autocast(device, self.precision):
            with torch.no_grad():
                aim = by_length(teacher, written.to(device))
            found = by_length(text, misspelt.to(device))
        return kl_between(aim.mu.float(), aim.logvar.float(), found.mu.float(), found.logvar.float()).sum(1).mean()

    def _ids(self, texts: list[str]) -> Tensor:
        return tokenise(self.tokenizer, texts, self.recipe.model.max_tokens)
