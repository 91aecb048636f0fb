"""The multimodal VAE around one latent space: encoders by modality, and the product of their posteriors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmsearch.models.vae import FeatureEncoder, MultimodalVAE, channels_last, fuse

N, D = 5, 4


@pytest.fixture
def vae() -> MultimodalVAE:
    torch.manual_seed(0)
    encoders = {"image": FeatureEncoder(12, 16, D, 0.0), "text": FeatureEncoder(7, 16, D, 0.0)}
    return MultimodalVAE(encoders, {}).eval()


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randn(N, 12, generator=generator), "text": torch.randn(N, 7, generator=generator)}


def test_only_what_is_there_is_encoded(vae: MultimodalVAE) -> None:
    both = vae.encode(inputs())
    assert both.keys() == {"image", "text"}
    for one in both.values():
        assert one.mu.shape == one.logvar.shape == (N, D)
        assert (one.logvar < 0).all(), "every expert adds information"
        assert not one.target.requires_grad
    alone = vae.encode({"text": inputs()["text"]})
    assert alone.keys() == {"text"}
    assert torch.equal(alone["text"].mu, both["text"].mu)


def test_a_missing_modality_gets_no_gradient(vae: MultimodalVAE) -> None:
    mu, _ = fuse(list(vae.encode({"text": inputs()["text"]}).values()))
    mu.square().sum().backward()
    assert all(one.grad is None for one in vae.encoders["image"].parameters())
    assert any(one.grad is not None and one.grad.abs().sum() > 0 for one in vae.encoders["text"].parameters())


def test_the_joint_posterior_is_the_product_with_the_prior(vae: MultimodalVAE) -> None:
    """`L = 1 + sum (L_m - 1)`, `mu = sum L_m mu_m / L`, with precisions L."""
    parts = list(vae.encode(inputs()).values())
    mu, logvar = fuse(parts)
    precisions = [torch.exp(-part.logvar) for part in parts]
    total = 1 + sum(one - 1 for one in precisions)
    torch.testing.assert_close(torch.exp(-logvar), total)
    weighted = sum(one * part.mu for one, part in zip(precisions, parts, strict=True))
    torch.testing.assert_close(mu, weighted / total)


def test_the_layout_changes_no_number() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, 3)
    pixels = torch.randn(2, 3, 9, 9)
    before = convolution(pixels)
    channels_last(MultimodalVAE({"image": convolution}, {}))
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(convolution(pixels), before)
