"""Captions encoded by length are the captions encoded together."""

from __future__ import annotations

import torch

from mmsearch.models.minilm import BertSize
from mmsearch.models.vae import TextEncoder
from mmsearch.training.trunk_stages import by_length


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
