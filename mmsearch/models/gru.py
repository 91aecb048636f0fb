"""A bidirectional-GRU text encoder and a GRU text decoder, trained from nothing.

In: token ids `[n, t]`, padded with 0. Out: an `Encoding`, and log probabilities of sentences given latents. The decoder
is trained with teacher forcing and word dropout (Bowman et al. 2016, https://arxiv.org/abs/1511.06349): where the words
before are hidden now and then, the latent has to carry the sentence. Padding anywhere is skipped, in the middle too,
where training drops words. Next: `vae.py`.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mmsearch.models.minilm import PAD_ID
from mmsearch.models.vae import Encoding


class GRUTextEncoder(nn.Module):
    """Sentences to posteriors: the last state of each direction, side by side."""

    def __init__(self, vocabulary: int, latent: int, embedding: int = 128, hidden: int = 128) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, embedding)
        self.gru = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)
        self.mu = nn.Linear(2 * hidden, latent)
        self.logvar = nn.Linear(2 * hidden, latent)

    def forward(self, ids: Tensor) -> Encoding:
        """Token ids int64 `[n, t]` -> posterior; the target is the ids with padding moved to the end."""
        tokens, lengths = left_aligned(ids)
        # An empty sentence is read as one padding token: a GRU needs at least one step.
        packed = pack_padded_sequence(
            self.words(tokens), lengths.clamp_min(1).cpu(), batch_first=True, enforce_sorted=False
        )
        _, last = self.gru(packed)  # [2, n, h]
        features = torch.cat([last[0], last[1]], dim=1)  # [n, 2h]
        return Encoding(self.mu(features), -F.softplus(self.logvar(features)), tokens)


class GRUTextDecoder(nn.Module):
    """Latents to sentences, word after word; each step sees the latent again.

    Class 0, padding among the inputs, is the end of the sentence among the outputs: the probabilities of all sentences
    of all lengths then sum to one, and `log_prob` is a likelihood.
    """

    def __init__(
        self, vocabulary: int, latent: int, embedding: int = 128, hidden: int = 256, word_dropout: float = 0.25
    ) -> None:
        super().__init__()
        self.word_dropout = word_dropout
        self.start_id, self.hidden_id = vocabulary, vocabulary + 1  # two inputs that are no words
        self.words = nn.Embedding(vocabulary + 2, embedding)
        self.first = nn.Linear(latent, hidden)
        self.gru = nn.GRU(embedding + latent, hidden, batch_first=True)
        self.out = nn.Linear(hidden, vocabulary)

    def forward(self, z: Tensor, previous: Tensor) -> Tensor:
        """Latents `[n, d]` and the ids of the words before each place `[n, t]` -> logits `[n, t, vocabulary]`."""
        states, _ = self.gru(self._inputs(z, previous), self.first(z).tanh()[None])  # [n, t, h]
        return cast(Tensor, self.out(states))

    def log_prob(self, target: Tensor, z: Tensor) -> Tensor:
        """`log p(target | z)` of each sentence, nats `[n]`: the sum over its words and its end. Target ids `[n, t]`."""
        tokens, lengths = left_aligned(target.long())  # a loop that casts targets to float may hand them over so
        ended = F.pad(tokens, (0, 1), value=PAD_ID)  # [n, t + 1]: the first padding is the end
        previous = F.pad(tokens, (1, 0), value=self.start_id)  # [n, t + 1]
        if self.training and self.word_dropout:
            hide = torch.rand(previous.shape, device=previous.device) < self.word_dropout
            hide[:, 0] = False
            previous = previous.masked_fill(hide, self.hidden_id)
        logits = self(z, previous)  # [n, t + 1, v]
        each = -F.cross_entropy(logits.transpose(1, 2), ended, reduction="none")  # [n, t + 1]
        counts = torch.arange(ended.shape[1], device=ended.device)[None] <= lengths[:, None]
        return each.masked_fill(~counts, 0.0).sum(1)

    @torch.no_grad()
    def greedy(self, z: Tensor, max_tokens: int = 24) -> Tensor:
        """The likeliest next word at every step, ids int64 `[n, max_tokens]`, padded with 0 after the end."""
        state = self.first(z).tanh()[None]  # [1, n, h]
        word = torch.full((len(z),), self.start_id, dtype=torch.int64, device=z.device)
        going = torch.ones(len(z), dtype=torch.bool, device=z.device)
        sentence = torch.full((len(z), max_tokens), PAD_ID, dtype=torch.int64, device=z.device)
        for place in range(max_tokens):
            states, state = self.gru(self._inputs(z, word[:, None]), state)
            word = self.out(states[:, 0]).argmax(1)
            going = going & (word != PAD_ID)
            sentence[:, place] = word.masked_fill(~going, PAD_ID)
        return sentence

    def _inputs(self, z: Tensor, previous: Tensor) -> Tensor:
        again = z[:, None].expand(-1, previous.shape[1], -1)  # [n, t, d]
        return torch.cat([self.words(previous), again], dim=2)  # [n, t, e + d]


def left_aligned(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Move padding to the end, keep the words' order: ids `[n, t]` -> ids `[n, t]` and lengths `[n]`."""
    padding = ids == PAD_ID
    order = padding.to(torch.uint8).argsort(dim=1, stable=True)
    return ids.gather(1, order), (~padding).sum(1)
