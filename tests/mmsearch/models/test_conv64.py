"""The 64x64 image encoder and decoder: shapes, gradients, likelihood in closed form, and that they can learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from mmsearch.data.scenes import render_scene
from mmsearch.models.conv64 import ConvImageDecoder, ConvImageEncoder
from mmsearch.models.gaussian import kl_to_prior, reparameterise

LATENT = 12


def scenes(n: int) -> Tensor:
    """Rendered scenes, uint8 `[n, 3, 64, 64]`."""
    return torch.stack([torch.from_numpy(np.array(render_scene(seed)[0])).permute(2, 0, 1) for seed in range(n)])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_shapes_and_the_variance_below_one() -> None:
    encoding = ConvImageEncoder(LATENT, width=8)(scenes(3))
    assert encoding.mu.shape == encoding.logvar.shape == (3, LATENT)
    assert (encoding.logvar < 0).all()
    assert encoding.target.shape == (3, 3, 64, 64)
    assert not encoding.target.requires_grad
    pictures = ConvImageDecoder(LATENT, width=8)(encoding.mu)
    assert pictures.shape == (3, 3, 64, 64)
    assert 0 <= pictures.min() < pictures.max() <= 1


def test_bytes_and_floats_are_the_same_picture() -> None:
    encoder, pictures = ConvImageEncoder(LATENT, width=8), scenes(2)
    from_bytes, from_floats = encoder(pictures), encoder(pictures.float() / 255)
    torch.testing.assert_close(from_bytes, from_floats)


def test_one_picture_is_encoded_as_in_a_batch() -> None:
    encoder, pictures = ConvImageEncoder(LATENT, width=8), scenes(4)
    torch.testing.assert_close(encoder(pictures[2:3]).mu, encoder(pictures).mu[2:3], atol=1e-5, rtol=1e-4)


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, 3, 32, 32\]; this model takes \[n, 3, 64, 64\]"):
        ConvImageEncoder(LATENT, width=8)(torch.zeros(1, 3, 32, 32))


def test_log_prob_equals_torch_distributions() -> None:
    decoder, z, target = ConvImageDecoder(LATENT, width=8), torch.randn(2, LATENT), scenes(2).float() / 255
    with torch.no_grad():
        decoder.scale.fill_(0.07)
        expected = Normal(decoder(z), (0.5 * decoder.logvar).exp()).log_prob(target).sum((1, 2, 3))
        torch.testing.assert_close(decoder.log_prob(target, z), expected)


def test_the_scale_has_a_floor_and_a_gradient_near_it() -> None:
    decoder = ConvImageDecoder(LATENT, width=8)
    with torch.no_grad():
        decoder.scale.fill_(-0.4)
    assert (0.5 * decoder.logvar).exp().item() == pytest.approx(5 / 255, rel=0.03)
    decoder.logvar.backward()
    assert decoder.scale.grad is not None
    assert decoder.scale.grad > 0


def test_gradient_reaches_every_weight() -> None:
    encoder, decoder = ConvImageEncoder(LATENT, width=8), ConvImageDecoder(LATENT, width=8)
    encoding = encoder(scenes(4))
    z = reparameterise(encoding.mu, encoding.logvar)
    (kl_to_prior(encoding.mu, encoding.logvar).sum(1) - decoder.log_prob(encoding.target, z)).mean().backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_learns_eight_scenes_by_heart() -> None:
    """After a few hundred steps the ELBO has risen by far and each reconstruction is nearest to its own scene."""
    pictures = scenes(8)
    encoder, decoder = ConvImageEncoder(LATENT, width=16), ConvImageDecoder(LATENT, width=16)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    elbos = []
    for _ in range(150):
        encoding = encoder(pictures)
        z = reparameterise(encoding.mu, encoding.logvar)
        elbo = (decoder.log_prob(encoding.target, z) - kl_to_prior(encoding.mu, encoding.logvar).sum(1)).mean()
        optimiser.zero_grad()
        (-elbo).backward()
        optimiser.step()
        elbos.append(elbo.item())
    assert elbos[-1] > elbos[0] + 10_000
    with torch.no_grad():
        encoding = encoder(pictures)
        errors = (decoder(encoding.mu)[:, None] - encoding.target[None]).square().mean((2, 3, 4))  # [8, 8]
    assert errors.argmin(1).tolist() == list(range(8))
    assert errors.diagonal().max() < 0.01
