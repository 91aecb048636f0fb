"""Captions as token ids: tokenizers, padding, and the small changes of wording that training sees.

In: strings. Out: int64 ids `[n, t]` padded with 0. Next: `stages.py` draws captions for a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

_TEMPLATES = (
    "{}",
    "a {}",
    "{}s",
    "the {}",
    "photo of {}",
    "a photo of a {}",
    "a picture of a {}",
    "a close-up of a {}",
    "this is a {}",
    "there is a {} in the picture",
)


def word_tokenizer(captions: Iterable[str]) -> Tokenizer:
    """A word-level tokenizer over the words of `captions`; id 0 pads, id 1 is an unknown word."""
    normalise = normalizers.Lowercase()
    split = pre_tokenizers.Whitespace()
    words = sorted({w for c in captions for w, _ in split.pre_tokenize_str(normalise.normalize_str(c))})
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{w: i + 2 for i, w in enumerate(words)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalise, split
    return tokenizer


def tokenise(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> Tensor:
    """Texts -> ids int64 `[n, t]`, as long as the longest of them, cut at `max_tokens`, padded with 0."""
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    rows = [e.ids for e in tokenizer.encode_batch(list(texts))]
    ids = torch.zeros(len(rows), max(1, max(map(len, rows), default=1)), dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids


def drop_tokens(ids: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Turn a share of the inner tokens into padding, so that no single word is relied on. The ends stay."""
    if not rate:
        return ids
    drop = torch.rand(ids.shape, generator=generator) < rate
    drop[:, :2] = False  # the opening token and the first word stay: no text becomes empty
    return ids.masked_fill(drop, 0)


def misspell(text: str, rng: np.random.Generator, share: float = 0.2, shortest: int = 4) -> str:
    """The text with a slip of the fingers in a share of its words: letters swapped, lost, doubled or wrong.

    Words of fewer than `shortest` letters stay.
    """
    words = text.split()
    for at in np.flatnonzero(rng.random(len(words)) < share):
        word = words[at]
        if len(word) < shortest:
            continue
        i = int(rng.integers(len(word) - 1))
        slips = (
            word[:i] + word[i + 1] + word[i] + word[i + 2 :],
            word[:i] + word[i + 1 :],
            word[: i + 1] + word[i:],
            word[:i] + chr(ord("a") + int(rng.integers(26))) + word[i + 1 :],
        )
        words[at] = slips[rng.integers(len(slips))]
    return " ".join(words)


def phrase(label: str, rng: np.random.Generator) -> str:
    """A label as a person might type it: bare half of the time, else inside an everyday phrase."""
    return label if rng.random() < 0.4 else _TEMPLATES[rng.integers(len(_TEMPLATES))].format(label)
