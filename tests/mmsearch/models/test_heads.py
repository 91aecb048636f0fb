"""Pooling, posterior heads and feature decoders, against formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from mmsearch.models.heads import AttentionPool, FeatureDecoder, GaussianHead


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_pooling_starts_as_the_mean_of_what_counts() -> None:
    pool, states = AttentionPool(12, groups=4), torch.randn(2, 5, 12)
    torch.testing.assert_close(pool(states), states.mean(1))
    mask = torch.tensor([[True, True, False, False, True], [True, False, False, False, False]])
    expected = torch.stack([states[0, [0, 1, 4]].mean(0), states[1, 0]])
    torch.testing.assert_close(pool(states, mask), expected)


def test_each_group_weights_its_own_slice_of_the_channels() -> None:
    pool, states = AttentionPool(6, groups=2), torch.randn(1, 4, 6)
    with torch.no_grad():
        nn.init.normal_(pool.score.weight)
        nn.init.normal_(pool.score.bias)
        pooled = pool(states)[0]
        weights = (states[0] @ pool.score.weight.T + pool.score.bias).softmax(0)  # [4, 2]
    torch.testing.assert_close(pooled[:3], (weights[:, :1] * states[0, :, :3]).sum(0))
    torch.testing.assert_close(pooled[3:], (weights[:, 1:] * states[0, :, 3:]).sum(0))


def test_what_is_masked_has_no_part_and_no_gradient() -> None:
    pool, mask = AttentionPool(8), torch.tensor([[True, True, False]])
    nn.init.normal_(pool.score.weight)
    states = torch.randn(1, 3, 8, requires_grad=True)
    pooled = pool(states, mask)
    pooled.square().sum().backward()
    assert states.grad is not None
    assert states.grad[0, 2].abs().max() == 0
    assert states.grad[0, :2].abs().min() > 0
    other = states.detach().clone()
    other[0, 2] = 1e3
    torch.testing.assert_close(pool(other, mask), pooled.detach())


def test_head_is_a_linear_path_beside_a_hidden_layer() -> None:
    head, features = GaussianHead(6, 10, 3, dropout=0.0), 5 + 3 * torch.randn(4, 6)
    head.fit_standardisation(features)
    nn.init.normal_(head.logvar.weight)
    with torch.no_grad():
        mu, logvar = head(features)
        x = (features - features.mean(0)) / features.std(0)
        h = nn.functional.gelu(x @ head.hidden.weight.T + head.hidden.bias)
        torch.testing.assert_close(mu, h @ head.mu.weight.T + head.mu.bias + x @ head.linear.weight.T)
        inner = h @ head.logvar.weight.T + head.logvar.bias
        torch.testing.assert_close(logvar, -(1 + inner.exp()).log())


def test_the_variance_starts_at_a_half_and_stays_below_one() -> None:
    head = GaussianHead(6, 10, 3, dropout=0.0)
    _, logvar = head(torch.randn(4, 6))
    torch.testing.assert_close(logvar, torch.full((4, 3), -math.log(2)))
    nn.init.constant_(head.logvar.bias, -10.0)
    _, logvar = head(torch.randn(4, 6))
    assert (logvar < 0).all()


def test_a_feature_that_never_varies_does_not_blow_up() -> None:
    head = GaussianHead(2, 4, 2, dropout=0.0)
    head.fit_standardisation(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    torch.testing.assert_close(head.standardise(torch.tensor([[2.0, 7.5]])), torch.tensor([[0.0, 500.0]]))
    assert {"mean", "spread"} <= set(head.state_dict())  # they travel with the weights


def test_dropout_is_for_training_alone() -> None:
    head, features = GaussianHead(64, 32, 4, dropout=0.5), torch.randn(3, 64)
    assert not torch.equal(head(features)[0], head(features)[0])
    head.eval()
    assert torch.equal(head(features)[0], head(features)[0])


def test_log_prob_equals_torch_distributions() -> None:
    decoder, z, target = FeatureDecoder(3, 8, 5), torch.randn(4, 3), torch.randn(4, 5)
    with torch.no_grad():
        decoder.logvar.copy_(torch.tensor([-9.0, -6.0, -1.0, 0.0, 2.0]))
        scale = (0.5 * torch.tensor([-6.0, -6.0, -1.0, 0.0, 2.0])).exp()  # a floor keeps the likelihood bounded
        expected = Normal(decoder(z), scale).log_prob(target).sum(1)
        torch.testing.assert_close(decoder.log_prob(target, z), expected)
