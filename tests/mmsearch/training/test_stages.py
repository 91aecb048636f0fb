"""What a batch holds: misspelt captions, colourless views, captions encoded by length."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from mmsearch.data.augmentation_cache import Augmentation, augment
from mmsearch.data.texts import misspell
from mmsearch.models.minilm import BertSize
from mmsearch.models.vae import TextEncoder
from mmsearch.training.trunk_stages import by_length


def test_a_misspelt_caption_keeps_its_short_words_and_its_number_of_words() -> None:
    rng = np.random.default_rng(0)
    text = "a brown dog is running along the sandy beach after an orange ball"
    found = [misspell(text, rng) for _ in range(200)]
    changed = [[(a, b) for a, b in zip(text.split(), t.split(), strict=True) if a != b] for t in found]
    slips = [pair for pairs in changed for pair in pairs]
    assert all(len(before) >= 4 and abs(len(before) - len(after)) <= 1 for before, after in slips)
    # 7 words of 4 letters and more, a fifth of each; swapped equal letters and the same letter again change nothing
    assert 200 * 7 * 0.2 * 0.8 < len(slips) < 200 * 7 * 0.2 * 1.2


def test_a_view_without_colour_is_grey_and_otherwise_it_is_not() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    for part, grey in ((0.0, False), (1.0, True)):
        view = augment(image, 16, Augmentation(grey=part), np.random.default_rng(2))
        assert (view.min(axis=2) == view.max(axis=2)).all() == grey


def test_captions_encoded_by_length_are_the_same_captions() -> None:
    torch.manual_seed(0)
    size = BertSize(vocabulary=50, width=24, layers=2, heads=2, hidden=32, positions=16)
    encoder = TextEncoder(size, hidden=16, latent=8, dropout=0.0).eval()
    ids = torch.randint(1, 50, (9, 12))
    for row in range(9):
        ids[row, 2 + row :] = 0
    ids[3, 1] = 0  # a dropped token is padding too, and no end
    with torch.no_grad():
        whole, parts = encoder(ids), by_length(encoder, ids)
    assert torch.allclose(whole.mu, parts.mu, atol=1e-5)
    assert torch.allclose(whole.logvar, parts.logvar, atol=1e-5)
