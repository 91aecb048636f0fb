"""The word pieces a model keeps: those of its captions and the frequent ones, not what photographs never need.

In: a trained model with the vocabulary its text transformer came with, half of whose rows no caption uses. Out: the
same with fewer rows. A word that is cut is spelt by shorter pieces. Next: `self_distillation.py`, which teaches to read
those.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

from tokenizers import Tokenizer
from torch import nn

from mmsearch.models.checkpoint import Architecture
from mmsearch.models.vae import MultimodalVAE, TextEncoder
from mmsearch.training.corpus import Corpus


def cut_vocabulary(
    vae: MultimodalVAE, architecture: Architecture, tokenizer: Tokenizer, words: set[str]
) -> tuple[Architecture, Tokenizer]:
    """Keep the rows of `words` and of the special tokens, in place; the new description and tokenizer."""
    described, rows = prune(tokenizer.to_str(), words)
    transformer = cast(TextEncoder, vae.encoders["text"]).transformer
    kept = transformer.words.weight.detach()[rows].clone()  # [w, 384]
    transformer.words = nn.Embedding(len(rows), kept.shape[1], _weight=kept)
    return replace(architecture, vocabulary=len(rows)), Tokenizer.from_str(described)


def frequent_words(tokenizer: Tokenizer, count: int, corpus: Corpus) -> set[str]:
    """The pieces of the training captions and the `count` most frequent ones of plain ASCII.

    BERT's vocabulary is sorted by frequency, so the first ids are the frequent ones.
    """
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = {word for word, _ in by_id[:count] if word.isascii() and not word.startswith("[unused")}
    for encoding in tokenizer.encode_batch([c for captions in corpus.captions[: corpus.train] for c in captions]):
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
