"""Token ids: a tokenizer over the words of a corpus, padding and cutting."""

from __future__ import annotations

import torch

from mmsearch.models.tokens import tokenise, word_tokenizer


def test_words_have_their_ids_in_order_whatever_their_case() -> None:
    tokenizer = word_tokenizer(["A red door", "red, Blue"])
    assert tokenizer.get_vocab() == {"[PAD]": 0, "[UNK]": 1, ",": 2, "a": 3, "blue": 4, "door": 5, "red": 6}
    assert tokenise(tokenizer, ["RED door", "a green door"], 8).tolist() == [[6, 5, 0], [3, 1, 5]]


def test_long_texts_are_cut_and_short_ones_padded() -> None:
    tokenizer = word_tokenizer(["a b c d"])
    ids = tokenise(tokenizer, ["a b c d", "d", ""], 3)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[2, 3, 4], [5, 0, 0], [0, 0, 0]]
    assert tokenise(tokenizer, ["a b c d"], 2).tolist() == [[2, 3]], "the limit of an earlier call does not stay"


def test_nothing_has_one_column_for_an_encoder_to_read() -> None:
    tokenizer = word_tokenizer(["a"])
    assert tokenise(tokenizer, [""], 4).shape == (1, 1)
    assert tokenise(tokenizer, [], 4).shape == (0, 1)
