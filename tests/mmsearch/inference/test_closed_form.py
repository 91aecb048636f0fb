"""Probabilistic PCA against the exact Gaussian, and what it does to rankings across two modalities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.distributions import MultivariateNormal

from indexer.base.types import Float32Array
from mmsearch.errors import ModelError
from mmsearch.inference.closed_form import PPCA, fit_heads, fit_ppca, isotropic_heads
from tests.mmsearch.inference.likelihood import log_density

F, D, NOISE = 12, 3, 0.05
W = np.random.default_rng(1).normal(size=(F, D)) * np.array([2.0, 1.0, 0.6])
MEAN = np.linspace(-1, 1, F)


def linear_gaussian(n: int, seed: int = 0) -> NDArray[np.float64]:
    """`x = W z + mean + noise` of variance NOISE, the model itself `[n, F]`."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, D)) @ W.T + MEAN + np.sqrt(NOISE) * rng.normal(size=(n, F))


def covariance(fitted: PPCA) -> NDArray[np.float64]:
    weights = fitted.basis * np.sqrt(fitted.variances - fitted.noise)  # [f, d]
    return weights @ weights.T + fitted.noise * np.eye(len(weights))


def exact(mean: NDArray[np.float64], cov: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    density = MultivariateNormal(torch.from_numpy(mean), torch.from_numpy(cov)).log_prob(torch.from_numpy(x))
    found: NDArray[np.float64] = density.numpy()
    return found


def test_marginal_likelihood_is_the_exact_gaussian() -> None:
    fitted, fresh = fit_ppca([linear_gaussian(500)], D), linear_gaussian(50, seed=9)
    expected = exact(fitted.means[0], covariance(fitted), fresh)
    np.testing.assert_allclose(log_density(fitted, fresh, 0), expected, rtol=1e-9)


def test_the_generating_model_is_recovered() -> None:
    fitted = fit_ppca([linear_gaussian(40_000)], D)
    assert fitted.noise == pytest.approx(NOISE, rel=0.02)
    np.testing.assert_allclose(fitted.means[0], MEAN, atol=0.06)
    true_axes = np.linalg.qr(W)[0]
    cosines = np.linalg.svd(true_axes.T @ fitted.basis, compute_uv=False)  # of the principal angles
    assert cosines.min() > 0.9995
    np.testing.assert_allclose(covariance(fitted), W @ W.T + NOISE * np.eye(F), atol=0.15)


def test_no_other_parameters_are_likelier() -> None:
    x = linear_gaussian(300)
    fitted = fit_ppca([x], D)
    best = log_density(fitted, x, 0).mean()
    rng = np.random.default_rng(4)
    for _ in range(20):
        turn = np.linalg.qr(fitted.basis + 0.03 * rng.normal(size=fitted.basis.shape))[0]
        assert log_density(PPCA(fitted.means, turn, fitted.variances, fitted.noise), x, 0).mean() < best
    for factor in (0.9, 1.1):
        other = PPCA(fitted.means, fitted.basis, fitted.variances, fitted.noise * factor)
        assert log_density(other, x, 0).mean() < best


def test_posterior_is_the_conditional_gaussian() -> None:
    """`z | x` by conditioning the joint Gaussian of (z, x), against `M^-1 W^T (x - mu)` and `s2 M^-1`."""
    fitted, x = fit_ppca([linear_gaussian(500)], D), linear_gaussian(20, seed=3)
    weights = fitted.basis * np.sqrt(fitted.variances - fitted.noise)
    gain = weights.T @ np.linalg.inv(covariance(fitted))  # [d, f]
    np.testing.assert_allclose((x - fitted.means[0]) @ fitted.projection.T, (x - fitted.means[0]) @ gain.T, atol=1e-9)
    np.testing.assert_allclose(np.diag(fitted.posterior_variance), np.eye(D) - gain @ weights, atol=1e-9)
    assert (fitted.posterior_variance < 1).all()


def test_two_groups_share_axes_and_keep_their_means() -> None:
    first, second = linear_gaussian(3000, seed=1), linear_gaussian(2000, seed=2) + 5
    fitted = fit_ppca([first, second], D)
    np.testing.assert_allclose(fitted.means[1] - fitted.means[0], 5, atol=0.25)
    assert fitted.noise == pytest.approx(NOISE, rel=0.05)  # one mean would have put the gap into the covariance
    assert fitted.variances[0] < 1.2 * (np.linalg.eigvalsh(W @ W.T)[-1] + NOISE)


def unit(rows: NDArray[np.floating]) -> Float32Array:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def pairs(n: int) -> tuple[Float32Array, Float32Array]:
    """Images and texts of n things with a modality gap: unit vectors in two cones, as contrastive models give them."""
    rng = np.random.default_rng(0)
    f, k = 64, 30
    axes = np.linalg.qr(rng.normal(size=(f, k)))[0] * np.arange(1.0, k + 1) ** -0.5
    cones = unit(rng.normal(size=(2, f)))
    z = rng.normal(size=(n, k)) @ axes.T * 0.3
    image, text = (unit(z + 0.6 * rng.normal(size=(n, f)) / np.sqrt(f) + cone) for cone in cones)
    return image, text


def recall(images: Float32Array, texts: Float32Array) -> float:
    """Percent of texts whose own image comes first by cosine."""
    scores = unit(texts) @ unit(images).T
    return float((scores.argmax(1) == np.arange(len(texts))).mean() * 100)


def ranked(images: Float32Array, texts: Float32Array, train: int) -> float:
    heads = fit_heads(images[:train], texts[:train])
    return recall(heads.posterior(images[-500:], "image").mu, heads.posterior(texts[-500:], "text").mu)


def test_heads_rank_better_than_the_raw_cosine_across_the_gap() -> None:
    images, texts = pairs(2500)
    raw = recall(images[-500:], texts[-500:])
    few, many = ranked(images, texts, 60), ranked(images, texts, 2000)
    assert few > raw + 10  # the means alone
    assert many > few + 10  # the axes too


def test_one_mean_for_both_modalities_spoils_the_ranking() -> None:
    images, texts = pairs(2500)
    heads = fit_heads(images[:2000], texts[:2000])
    as_images = heads.posterior(texts[-500:], "image").mu
    assert recall(heads.posterior(images[-500:], "image").mu, as_images) < ranked(images, texts, 2000) / 2


def test_isotropic_heads_keep_cosines_and_match_the_prior() -> None:
    x = unit(np.random.default_rng(0).normal(size=(2000, 16)))
    found = isotropic_heads(16).posterior(x, "image")
    np.testing.assert_allclose(unit(found.mu) @ unit(found.mu).T, x @ x.T, atol=1e-5)
    second_moment = (found.mu**2 + np.exp(found.logvar)).mean()
    assert second_moment == pytest.approx(1, abs=1e-5)


def test_posterior_of_nothing_has_the_right_shape() -> None:
    found = isotropic_heads(16).posterior(np.zeros((0, 16), np.float32), "text")
    assert found.mu.shape == found.logvar.shape == (0, 16)


@pytest.mark.parametrize(
    ("images", "texts", "latent_dim", "what"),
    [
        (15, 40, None, "at least 16 images, found 15"),
        (40, 3, None, "at least 16 texts, found 3"),
        (20, 20, 39, "more than 40 vectors"),
        (200, 200, 64, "found 400 vectors of 64"),
    ],
)
def test_too_few_vectors_are_refused(images: int, texts: int, latent_dim: int | None, what: str) -> None:
    x, y = pairs(200)
    with pytest.raises(ModelError, match=what):
        fit_heads(x[:images], y[:texts], latent_dim)


def test_vectors_of_a_plane_leave_no_noise() -> None:
    flat = np.random.default_rng(0).normal(size=(50, 2)) @ np.random.default_rng(1).normal(size=(2, 8))
    with pytest.raises(ModelError, match="no noise outside 3 dimensions"):
        fit_ppca([flat], 3)


def test_widths_that_differ_are_refused() -> None:
    x, y = pairs(50)
    with pytest.raises(ModelError, match="images have 64 features, texts 32"):
        fit_heads(x, np.ascontiguousarray(y[:, :32]))
