"""Texts as token ids: a tokenizer over the words of a corpus, padding, and a vocabulary cut to what is needed.

In: strings. Out: int64 ids `[n, t]` padded with 0, which the text encoders take. Next: `minilm.py`, `gru.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn

from mmsearch.models.checkpoint import Architecture
from mmsearch.models.vae import MultimodalVAE, TextEncoder


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


def cut_vocabulary(
    vae: MultimodalVAE, architecture: Architecture, tokenizer: Tokenizer, words: set[str]
) -> tuple[Architecture, Tokenizer]:
    """Keep the rows of `words` and of the special tokens, in place; the new description and tokenizer.

    Photographs never need half of the rows that a text transformer comes with. A word that is cut is spelt by shorter
    pieces, which `training/self_distillation.py` teaches to read.
    """
    described, rows = prune(tokenizer.to_str(), words)
    transformer = cast(TextEncoder, vae.encoders["text"]).transformer
    kept = transformer.words.weight.detach()[rows].clone()  # [w, 384]
    transformer.words = nn.Embedding(len(rows), kept.shape[1], _weight=kept)
    return replace(architecture, vocabulary=len(rows)), Tokenizer.from_str(described)


def frequent_words(tokenizer: Tokenizer, count: int, captions: Iterable[str]) -> set[str]:
    """The pieces of captions and the `count` most frequent ones of plain ASCII.

    BERT's vocabulary is sorted by frequency, so the first ids are the frequent ones.
    """
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = {word for word, _ in by_id[:count] if word.isascii() and not word.startswith("[unused")}
    for encoding in tokenizer.encode_batch(list(captions)):
        words.update(encoding.tokens)
    return words


def prune(tokenizer_json: str, words: set[str]) -> tuple[str, list[int]]:
    """Cut a WordPiece vocabulary to `words` and the special tokens; the JSON, and the rows kept in order."""
    described = json.loads(tokenizer_json)
    vocabulary: dict[str, int] = described["model"]["vocab"]
    special = {t["content"] for t in described["added_tokens"]}
    kept = [w for w, _ in sorted(vocabulary.items(), key=lambda item: item[1]) if w in words or w in special]
    described["model"]["vocab"] = new = {w: i for i, w in enumerate(kept)}
    for token in described["added_tokens"]:
        token["id"] = new[token["content"]]
    for special_token in (described.get("post_processor") or {}).get("special_tokens", {}).values():
        special_token["ids"] = [new[t] for t in special_token["tokens"]]
    return json.dumps(described, ensure_ascii=False), [vocabulary[w] for w in kept]
