"""Texts as token ids: a tokenizer over the words of a corpus, and padding.

In: strings. Out: int64 ids `[n, t]` padded with 0, which the text encoders take. Next: `minilm.py`, `gru.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor


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
