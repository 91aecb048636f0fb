"""Linear CCA against its definition, and against the Gaussian that it is a model of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from mmsearch.evaluation.bounds import bounds
from mmsearch.models.checkpoint import Architecture, build
from mmsearch.models.gaussian import product_of_experts
from mmsearch.models.heads import FeatureDecoder
from mmsearch.models.vae import FeatureEncoder, MultimodalVAE
from mmsearch.training.cca import CCA, LinearDecoder, fit_cca, fit_heads

N, F, G, D = 400, 6, 5, 3
PHOTO = np.repeat(np.arange(N), 2)  # two texts of each photo


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N, 4))
    images = z @ rng.normal(size=(4, F)) + rng.normal(size=(N, F)) + 2
    texts = z[PHOTO] @ rng.normal(size=(4, G)) + rng.normal(size=(2 * N, G)) - 1
    return images, texts


@pytest.fixture(scope="module")
def fitted() -> CCA:
    return fit_cca(*data(), PHOTO, D, ridge=0.0)


def test_canonical_variates_are_white_and_correlate_in_pairs_only(fitted: CCA) -> None:
    images, texts = data()
    u = (images[PHOTO] - fitted.means[0]) @ fitted.directions[0]
    v = (texts - fitted.means[1]) @ fitted.directions[1]
    n = len(texts)
    np.testing.assert_allclose(u.T @ u / n, np.eye(D), atol=1e-10)
    np.testing.assert_allclose(v.T @ v / n, np.eye(D), atol=1e-10)
    np.testing.assert_allclose(u.T @ v / n, np.diag(fitted.correlations), atol=1e-10)
    assert (np.diff(fitted.correlations) < 0).all()


def test_no_direction_correlates_more_than_the_first(fitted: CCA) -> None:
    images, texts = data()
    rng = np.random.default_rng(1)
    x, y = images[PHOTO] - images[PHOTO].mean(0), texts - texts.mean(0)
    for _ in range(200):
        a, b = x @ rng.normal(size=F), y @ rng.normal(size=G)
        assert abs(np.corrcoef(a, b)[0, 1]) <= fitted.correlations[0]


def dense(fitted: CCA) -> tuple[np.ndarray, np.ndarray]:
    """Loadings of both modalities together `[f + g, d]` and the covariance of the model `[f + g, f + g]`."""
    loading = np.concatenate([fitted.loading(0), fitted.loading(1)])
    noise = np.zeros((F + G, F + G))
    noise[:F, :F], noise[F:, F:] = fitted.noise(0), fitted.noise(1)
    return loading, loading @ loading.T + noise


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_posteriors_and_their_product_are_those_of_the_linear_model(ridge: float) -> None:
    fitted = fit_cca(*data(), PHOTO, D, ridge=ridge)
    images, texts = data()
    x = np.concatenate([images[PHOTO] - fitted.means[0], texts - fitted.means[1]], 1)[:7]
    loading, covariance = dense(fitted)
    given = np.linalg.solve(covariance, loading).T  # [d, f + g]
    mus = [torch.from_numpy(x[:, :F] @ fitted.projection(0).T), torch.from_numpy(x[:, F:] @ fitted.projection(1).T)]
    logvar = torch.from_numpy(np.log(1 - fitted.correlations)).expand(7, D)
    mu, joint_logvar = product_of_experts(mus, [logvar, logvar])
    np.testing.assert_allclose(mu.numpy(), x @ given.T, atol=1e-9)
    np.testing.assert_allclose(np.diag(joint_logvar[0].exp().numpy()), np.eye(D) - given @ loading, atol=1e-9)
    alone = np.linalg.solve(covariance[:F, :F], loading[:F]).T
    np.testing.assert_allclose(mus[0].numpy(), x[:, :F] @ alone.T, atol=1e-9)
    np.testing.assert_allclose(np.diag(logvar[0].exp().numpy()), np.eye(D) - alone @ loading[:F], atol=1e-9)


def test_heads_compute_it_and_the_weighted_bound_is_the_likelihood() -> None:
    """The weights p(x, z) / q(z) are all p(x): the bound with two samples is exact."""
    images, texts = (torch.from_numpy(part) for part in data())
    torch.manual_seed(0)
    architecture = Architecture(kind="backbone", latent_dim=D, hidden_dim=8, image_features=F, text_features=G)
    vae = build(architecture, dropout=0.3).double().eval()
    for m, part in (("image", images), ("text", texts)):
        encoder = vae.encoders[m]
        assert isinstance(encoder, FeatureEncoder)
        encoder.head.fit_standardisation(part)
    fitted = fit_heads(vae, images, texts, torch.from_numpy(PHOTO))
    decoders = {m: LinearDecoder(fitted, i, torch.float64) for i, m in enumerate(("image", "text"))}
    linear = MultimodalVAE(dict(vae.encoders.items()), decoders)
    with torch.no_grad():
        encodings = linear.encode({"image": images, "text": texts})
    found = bounds(linear, encodings, torch.from_numpy(PHOTO), samples=2)["joint"]
    x = np.concatenate([encodings["image"].target[PHOTO].numpy(), encodings["text"].target.numpy()], 1)
    mean, covariance = np.concatenate(fitted.means), dense(fitted)[1]
    exact = MultivariateNormal(torch.from_numpy(mean), torch.from_numpy(covariance)).log_prob(torch.from_numpy(x))
    assert found.importance_weighted == pytest.approx(exact.mean().item(), abs=1e-8)
    np.testing.assert_allclose(encodings["text"].logvar[0].exp().numpy(), 1 - fitted.correlations, atol=1e-9)


def test_decoders_that_cannot_hold_it_know_nothing() -> None:
    images, texts = (torch.from_numpy(part).float() for part in data())
    architecture = Architecture(kind="backbone", latent_dim=D, hidden_dim=8, image_features=F, text_features=G)
    vae = build(architecture)
    fit_heads(vae, images, texts, torch.from_numpy(PHOTO))
    target, z = torch.randn(4, F), torch.randn(4, D)
    decoder = vae.decoders["image"]
    assert isinstance(decoder, FeatureDecoder)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(target).sum(1)
    torch.testing.assert_close(decoder.log_prob(target, z), expected)


def test_more_directions_than_features_are_refused() -> None:
    with pytest.raises(ValueError, match="6 canonical directions of 6 and 5 features"):
        fit_cca(*data(), PHOTO, 6, ridge=0.1)


def test_a_ridge_shrinks_every_correlation(fitted: CCA) -> None:
    assert (fit_cca(*data(), PHOTO, D, ridge=1.0).correlations < fitted.correlations).all()
