"""The small changes of wording that training sees: tokens left out, typing slips, phrases around a name.

In: strings, or token ids int64 `[n, t]`. Out: the same, changed. Next: `training/stages.py` samples captions for a
batch.
"""

from __future__ import annotations

import numpy as np
import torch
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
