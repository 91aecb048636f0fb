"""Changes of wording in training: tokens left out, typing slips, phrases around a name."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import torch

from mmsearch.data.texts import drop_tokens, misspell, phrase


def test_a_share_of_the_inner_tokens_becomes_padding() -> None:
    ids = torch.arange(1, 40_001).reshape(200, 200)
    dropped = drop_tokens(ids, 0.25, torch.Generator().manual_seed(0))
    kept = dropped == ids
    assert (dropped[~kept] == 0).all()
    assert kept[:, :2].all(), "the opening token and the first word stay"
    assert abs(1 - kept[:, 2:].float().mean().item() - 0.25) < 0.01
    assert drop_tokens(ids, 0.0, torch.Generator()) is ids


def test_a_slip_is_one_edit_and_short_words_stay() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        cat, mountain = misspell("cat mountain", rng, share=1.0).split()
        assert cat == "cat"
        assert 7 <= len(mountain) <= 9
        if len(mountain) == 8:
            changed = [at for at in range(8) if mountain[at] != "mountain"[at]]
            is_swap = sorted(mountain) == sorted("mountain")
            assert len(changed) in ((0, 2) if is_swap else (1,)), mountain
        else:
            assert sum((Counter(mountain) - Counter("mountain")).values()) <= 1


def test_the_share_of_words_with_a_slip() -> None:
    rng = np.random.default_rng(1)
    words = " ".join(["elephant"] * 5000)
    same = misspell(words, rng, share=0.2).split().count("elephant")
    assert abs(same / 5000 - 0.8) < 0.03
    assert misspell(words, rng, share=0.0) == words
    assert misspell("", rng) == ""


def test_a_label_is_often_bare_and_always_there() -> None:
    rng = np.random.default_rng(2)
    phrases = Counter(phrase("violin", rng) for _ in range(2000))
    assert all(re.search(r"\bviolins?\b", one) for one in phrases)
    assert len(phrases) == 10
    assert abs(phrases["violin"] / 2000 - (0.4 + 0.6 / 10)) < 0.04  # one of the ten templates is the bare label


def test_a_misspelt_caption_keeps_its_short_words_and_its_number_of_words() -> None:
    rng = np.random.default_rng(0)
    text = "a brown dog is running along the sandy beach after an orange ball"
    found = [misspell(text, rng) for _ in range(200)]
    changed = [[(a, b) for a, b in zip(text.split(), t.split(), strict=True) if a != b] for t in found]
    slips = [pair for pairs in changed for pair in pairs]
    assert all(len(before) >= 4 and abs(len(before) - len(after)) <= 1 for before, after in slips)
    # 7 words of 4 letters and more, a fifth of each; swapped equal letters and the same letter again change nothing
    assert 200 * 7 * 0.2 * 0.8 < len(slips) < 200 * 7 * 0.2 * 1.2
