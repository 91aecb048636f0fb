"""The Gaussian algebra against torch.distributions, against a model solved exactly, and against a dense grid."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from mmsearch.models.gaussian import kl_between, kl_to_prior, log_density, product_of_experts, reparameterise

N, D = 5, 7


def gaussians(seed: int, low: float = -4.0, high: float = -0.05) -> tuple[Tensor, Tensor]:
    """Means and log variances below zero, float64 `[N, D]`."""
    generator = torch.Generator().manual_seed(seed)
    mu = 2 * torch.randn(N, D, generator=generator, dtype=torch.float64)
    return mu, low + (high - low) * torch.rand(N, D, generator=generator, dtype=torch.float64)


def normal(mu: Tensor, logvar: Tensor) -> Normal:
    return Normal(mu, (0.5 * logvar).exp())


def test_kl_to_prior_equals_torch_distributions() -> None:
    mu, logvar = gaussians(0)
    expected = kl_divergence(normal(mu, logvar), Normal(torch.zeros_like(mu), torch.ones_like(mu)))
    torch.testing.assert_close(kl_to_prior(mu, logvar), expected)
    assert kl_to_prior(torch.zeros(2, 3), torch.zeros(2, 3)).abs().max() == 0


def test_kl_to_prior_by_hand() -> None:
    """N(1, 1/4) to N(0, 1): (1 + 1/4 - 1 + ln 4) / 2."""
    value = kl_to_prior(torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), math.log(0.25), dtype=torch.float64))
    assert value.item() == pytest.approx((0.25 + math.log(4)) / 2, rel=1e-12)


def test_kl_between_equals_torch_distributions() -> None:
    (mu_p, logvar_p), (mu_q, logvar_q) = gaussians(1), gaussians(2)
    expected = kl_divergence(normal(mu_p, logvar_p), normal(mu_q, logvar_q))
    torch.testing.assert_close(kl_between(mu_p, logvar_p, mu_q, logvar_q), expected)


def test_kl_between_meets_kl_to_prior() -> None:
    mu, logvar = gaussians(3)
    zero = torch.zeros_like(mu)
    torch.testing.assert_close(kl_between(mu, logvar, zero, zero), kl_to_prior(mu, logvar))
    torch.testing.assert_close(kl_between(mu, logvar, mu, logvar), zero)


def test_log_density_equals_torch_distributions() -> None:
    mu, logvar = gaussians(4)
    x = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(log_density(x, mu, logvar), normal(mu, logvar).log_prob(x))


def test_samples_have_the_stated_moments_and_carry_gradient() -> None:
    mu = torch.tensor([[1.5, -2.0]], requires_grad=True)
    logvar = torch.tensor([[-1.0, -3.0]], requires_grad=True)
    draws = reparameterise(mu.expand(200_000, 2), logvar.expand(200_000, 2), torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws.mean(0, keepdim=True), mu, atol=0.01, rtol=0)
    torch.testing.assert_close(draws.var(0, keepdim=True).log(), logvar, atol=0.02, rtol=0)
    draws.square().mean(0).sum().backward()  # E[z^2] = mu^2 + exp(logvar)
    assert mu.grad is not None
    assert logvar.grad is not None
    torch.testing.assert_close(mu.grad, 2 * mu.detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(logvar.grad, logvar.detach().exp(), atol=0.02, rtol=0)


def test_samples_repeat_with_the_seed() -> None:
    mu, logvar = gaussians(6)
    first, second, other = (reparameterise(mu, logvar, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_product_is_the_exact_posterior_of_a_linear_gaussian_model() -> None:
    """z ~ N(0, 1), x_m = z + noise of variance v_m: the posteriors given each x fuse to the posterior given all."""
    x = torch.tensor([0.7, -0.2, 1.9], dtype=torch.float64)
    v = torch.tensor([0.5, 2.0, 0.1], dtype=torch.float64)
    mus = [(x[m] / (1 + v[m])).reshape(1, 1) for m in range(3)]
    logvars = [(v[m] / (1 + v[m])).log().reshape(1, 1) for m in range(3)]
    mu, logvar = product_of_experts(mus, logvars)
    precision = 1 + (1 / v).sum()
    torch.testing.assert_close(logvar.exp().squeeze(), 1 / precision)
    torch.testing.assert_close(mu.squeeze(), (x / v).sum() / precision)


def test_product_equals_a_dense_numerical_product() -> None:
    """prior * prod_m q_m / prior on a grid, normalised: its mean and variance are the fused ones."""
    experts = [gaussians(seed) for seed in (7, 8, 9)]
    mu, logvar = product_of_experts([m for m, _ in experts], [v for _, v in experts])
    grid = torch.linspace(-14, 14, 56_001, dtype=torch.float64)
    prior = Normal(torch.zeros((), dtype=torch.float64), 1.0).log_prob(grid)
    for row, column in [(0, 0), (2, 3), (4, 6)]:
        log_product = prior + sum(normal(m[row, column], v[row, column]).log_prob(grid) - prior for m, v in experts)
        weights = torch.softmax(log_product, 0)
        mean = (weights * grid).sum()
        torch.testing.assert_close(mu[row, column], mean, atol=1e-9, rtol=1e-7)
        torch.testing.assert_close(
            logvar[row, column].exp(), (weights * (grid - mean) ** 2).sum(), atol=1e-9, rtol=1e-7
        )


def test_one_modality_comes_back_unchanged() -> None:
    mu, logvar = gaussians(10)
    fused_mu, fused_logvar = product_of_experts([mu], [logvar])
    torch.testing.assert_close(fused_mu, mu, atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(fused_logvar, logvar, atol=1e-14, rtol=1e-14)


def test_an_expert_that_knows_nothing_changes_nothing() -> None:
    mu, logvar = gaussians(11)
    zero = torch.zeros_like(mu)
    fused_mu, fused_logvar = product_of_experts([mu, zero], [logvar, zero])
    torch.testing.assert_close(fused_mu, mu)
    torch.testing.assert_close(fused_logvar, logvar)


def test_fusing_two_then_one_equals_fusing_three() -> None:
    a, b, c = (gaussians(seed) for seed in (12, 13, 14))
    ab = product_of_experts([a[0], b[0]], [a[1], b[1]])
    stepwise = product_of_experts([ab[0], c[0]], [ab[1], c[1]])
    at_once = product_of_experts([a[0], b[0], c[0]], [a[1], b[1], c[1]])
    torch.testing.assert_close(stepwise, at_once)


def test_missing_modality_gets_exactly_zero_gradient() -> None:
    tensors = [tensor.clone().requires_grad_() for seed in (15, 16, 17) for tensor in gaussians(seed)]
    mus, logvars = tensors[::2], tensors[1::2]
    mu, logvar = product_of_experts([mus[0], mus[2]], [logvars[0], logvars[2]])
    (mu.square().sum() + logvar.exp().sum() + 0 * sum(t.sum() for t in tensors)).backward()
    for present in (0, 2):
        assert mus[present].grad is not None
        assert (mus[present].grad != 0).all()  # type: ignore[union-attr]
        assert (logvars[present].grad != 0).all()  # type: ignore[union-attr]
    assert (mus[1].grad == 0).all()  # type: ignore[union-attr]
    assert (logvars[1].grad == 0).all()  # type: ignore[union-attr]


def test_no_modality_is_an_error() -> None:
    mu, logvar = gaussians(18)
    with pytest.raises(ValueError, match="0 means"):
        product_of_experts([], [])
    with pytest.raises(ValueError, match="2 means and 1 log variances"):
        product_of_experts([mu, mu], [logvar])


log_variances = st.floats(min_value=-8, max_value=-1e-3)
means = st.floats(min_value=-5, max_value=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(means, log_variances), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_product_ignores_order_and_only_sharpens(experts: list[tuple[float, float]], random: object) -> None:
    def fuse(order: list[tuple[float, float]]) -> tuple[Tensor, Tensor]:
        columns = [
            [torch.tensor([[value]], dtype=torch.float64) for value in side] for side in zip(*order, strict=True)
        ]
        return product_of_experts(columns[0], columns[1])

    mu, logvar = fuse(experts)
    shuffled = list(experts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    torch.testing.assert_close(fuse(shuffled), (mu, logvar))
    assert logvar.item() <= min(v for _, v in experts) + 1e-12


@settings(max_examples=60, deadline=None)
@given(means, log_variances, means, log_variances)
def test_divergence_is_never_negative(mu_p: float, logvar_p: float, mu_q: float, logvar_q: float) -> None:
    values = [torch.tensor(value, dtype=torch.float64) for value in (mu_p, logvar_p, mu_q, logvar_q)]
    assert kl_between(*values).item() >= -1e-12
    assert kl_to_prior(values[0], values[1]).item() >= -1e-12
