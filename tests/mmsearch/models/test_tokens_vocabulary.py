"""Which word pieces stay, and that a model with fewer of them gives the same posteriors for what it can still spell."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

from mmsearch.models.checkpoint import Architecture
from mmsearch.models.minilm import BertSize
from mmsearch.models.tokens import cut_vocabulary, frequent_words, prune, tokenise
from mmsearch.models.vae import MultimodalVAE, TextEncoder
from mmsearch.training.corpus import Corpus

PIECES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "cat", "##s", "ba", "dog", "é"]


def word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    return tokenizer


def test_a_pruned_vocabulary_spells_what_it_lost() -> None:
    before = word_pieces()
    described, rows = prune(before.to_str(), {"a", "b", "##a", "##b", "cat", "##s"})
    after = Tokenizer.from_str(described)
    kept = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "cat", "##s"]
    assert [PIECES[row] for row in rows] == kept
    assert after.get_vocab() == {piece: i for i, piece in enumerate(kept)}
    assert after.token_to_id("[PAD]") == 0
    for text in ("cats", "a cat", "Cat b"):  # the same pieces, read from the same rows of the embedding
        old, new = before.encode(text), after.encode(text)
        assert new.tokens == old.tokens
        assert [rows[i] for i in new.ids] == old.ids
    assert before.encode("ba dog").tokens == ["[CLS]", "ba", "dog", "[SEP]"]
    assert after.encode("ba dog").tokens == ["[CLS]", "b", "##a", "[UNK]", "[SEP]"]


def test_words_kept_are_those_of_the_captions_and_the_first_plain_ones() -> None:
    corpus = Corpus(
        photos=(Path("a"), Path("b")), captions=(("dog dog",), ("ba",)), shares=np.ones(1), sentences=1, train=1
    )
    tokenizer = word_pieces()
    found = frequent_words(tokenizer, 8, corpus.training_captions)
    assert {"a", "b", "##a", "dog", "[CLS]", "[SEP]"} <= found
    assert found.isdisjoint({"[unused0]", "##b", "ba", "é"})  # not among the first, or of a validation photo alone
    everything = frequent_words(tokenizer, 99, corpus.training_captions)
    assert set(PIECES) - everything == {"[unused0]", "é"}


def test_a_model_with_fewer_words_gives_the_same_posteriors() -> None:
    torch.manual_seed(0)
    size = BertSize(vocabulary=len(PIECES), width=16, layers=1, heads=2, hidden=32, positions=16)
    vae = MultimodalVAE({"text": TextEncoder(size, hidden=16, latent=4, dropout=0.1), "image": nn.Linear(2, 2)}, {})
    architecture = Architecture(kind="pretrained", vocabulary=len(PIECES), latent_dim=4, hidden_dim=16)

    def mean(tokenizer: Tokenizer, text: str) -> Tensor:
        with torch.inference_mode():
            return cast(TextEncoder, vae.eval().encoders["text"])(tokenise(tokenizer, [text], 16)).mu

    before = word_pieces()
    cat, other = mean(before, "a cat"), mean(before, "ba")
    cut, after = cut_vocabulary(vae, architecture, before, {"a", "b", "##a", "cat"})
    assert cut.vocabulary == after.get_vocab_size() == 8
    assert torch.equal(mean(after, "a cat"), cat)
    assert not torch.allclose(mean(after, "ba"), other)  # spelt "b", "##a" now
