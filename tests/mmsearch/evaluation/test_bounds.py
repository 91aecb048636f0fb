"""The bounds against models whose likelihood is known: linear-Gaussian ones (probabilistic PCA and CCA), and mixtures.

A linear decoder's log density is quadratic in the latent, so the points mu +- sqrt(d) sigma_i e_i, 2 d of them, have
exactly its expectation (Julier & Uhlmann 1997): drawn in place of noise they make the ELBO exact to the last bits.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from mmsearch.evaluation import bounds as module
from mmsearch.evaluation.bounds import Bounds, bounds
from mmsearch.inference.closed_form import fit_ppca
from mmsearch.models.gaussian import kl_between, log_density, product_of_experts
from mmsearch.models.vae import Encoding, MultimodalVAE
from tests.mmsearch.inference import likelihood

D, PAIRS = 3, 90  # more than one chunk of pairs


class Linear(nn.Module):
    """`x = W z + e`, e of variance `psi` a feature, with `W^T psi^-1 W` diagonal: the posterior is diagonal."""

    def __init__(self, weight: Tensor, psi: Tensor) -> None:
        super().__init__()
        self.weight, self.psi = weight, psi
        information = weight.T @ (weight / psi[:, None])  # [d, d]
        torch.testing.assert_close(information, torch.diag(information.diagonal()))
        self.information = information.diagonal()

    def log_prob(self, target: Tensor, z: Tensor) -> Tensor:
        return log_density(target, z @ self.weight.T, self.psi.log()).sum(1)

    def encode(self, x: Tensor) -> Encoding:
        precision = 1 + self.information
        return Encoding((x / self.psi) @ self.weight / precision, -precision.log().expand(len(x), -1), x)


def linear(features: int, generator: torch.Generator) -> Linear:
    """`W = psi^1/2 Q diag(s)` with orthonormal columns Q."""
    psi = 0.2 + torch.rand(features, generator=generator, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(features, D, generator=generator, dtype=torch.float64))
    strength = 0.5 + 2 * torch.rand(D, generator=generator, dtype=torch.float64)
    return Linear(psi.sqrt()[:, None] * q * strength, psi)


@pytest.fixture
def model() -> tuple[MultimodalVAE, dict[str, Encoding], Tensor]:
    """Two modalities, pairs drawn from the model, and the exact log p(image, text) of each pair."""
    generator = torch.Generator().manual_seed(0)
    decoders = {"image": linear(7, generator), "text": linear(5, generator)}
    z = torch.randn(PAIRS, D, generator=generator, dtype=torch.float64)
    xs = {
        m: z @ p.weight.T + p.psi.sqrt() * torch.randn(PAIRS, len(p.psi), generator=generator, dtype=torch.float64)
        for m, p in decoders.items()
    }
    weight = torch.cat([p.weight for p in decoders.values()])  # [12, d]
    covariance = weight @ weight.T + torch.diag(torch.cat([p.psi for p in decoders.values()]))
    evidence = MultivariateNormal(weight.new_zeros(12), covariance).log_prob(torch.cat(list(xs.values()), 1))
    return MultimodalVAE({}, decoders), {m: p.encode(xs[m]) for m, p in decoders.items()}, evidence


def sigma_points(monkeypatch: pytest.MonkeyPatch, d: int) -> int:
    """Put the 2 d points in place of the draws; returns how many samples then are exact."""
    turn = itertools.cycle([(i, sign) for i in range(d) for sign in (-1, 1)])

    def point(mu: Tensor, logvar: Tensor, generator: torch.Generator) -> Tensor:
        i, sign = next(turn)
        z = mu.clone()
        z[:, i] += sign * math.sqrt(d) * (0.5 * logvar[:, i]).exp()
        return z

    monkeypatch.setattr(module, "reparameterise", point)
    return 2 * d


def test_with_the_exact_posterior_the_elbo_is_the_likelihood(
    model: tuple[MultimodalVAE, dict[str, Encoding], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, encodings, evidence = model
    found = bounds(vae, encodings, torch.arange(PAIRS), samples=sigma_points(monkeypatch, D))["joint"]
    exact = evidence.mean().item()
    assert found.elbo == pytest.approx(exact, abs=1e-10)
    assert found.importance_weighted == pytest.approx(exact, abs=1e-10)


def test_with_chance_too_the_weighted_bound_is_the_likelihood(
    model: tuple[MultimodalVAE, dict[str, Encoding], Tensor],
) -> None:
    """Every weight p(x, z) / q(z) is p(x), wherever z falls."""
    vae, encodings, evidence = model
    found = bounds(vae, encodings, torch.arange(PAIRS), samples=2)["joint"]
    assert found.importance_weighted == pytest.approx(evidence.mean().item(), abs=1e-10)


def test_with_another_posterior_the_elbo_is_below_by_the_divergence(
    model: tuple[MultimodalVAE, dict[str, Encoding], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """log p(x) - ELBO(q) = KL(q || p(z|x)), here for what each modality alone believes, and for one made up."""
    vae, encodings, evidence = model
    joint = product_of_experts([e.mu for e in encodings.values()], [e.logvar for e in encodings.values()])
    samples = sigma_points(monkeypatch, D)
    found = bounds(vae, encodings, torch.arange(PAIRS), samples=samples)
    for m, e in encodings.items():
        gap = kl_between(e.mu, e.logvar, *joint).sum(1).mean().item()
        assert gap > 0.1
        assert found[m].elbo == pytest.approx(evidence.mean().item() - gap, abs=1e-10)
    shifted = {m: Encoding(e.mu + 0.4, e.logvar - 0.3, e.target) for m, e in encodings.items()}
    wrong = product_of_experts([e.mu for e in shifted.values()], [e.logvar for e in shifted.values()])
    gap = kl_between(*wrong, *joint).sum(1).mean().item()
    found = bounds(vae, shifted, torch.arange(PAIRS), samples=samples)
    assert found["joint"].elbo == pytest.approx(evidence.mean().item() - gap, abs=1e-10)


def test_the_elbo_of_probabilistic_pca_is_its_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed-form heads' own density (Tipping & Bishop 1999) against the bound of one modality."""
    x = np.random.default_rng(0).normal(size=(PAIRS, 6)) @ np.diag([3.0, 2.0, 1.5, 0.4, 0.3, 0.2])
    fitted = fit_ppca([x], D)
    weight = torch.from_numpy(fitted.basis * np.sqrt(fitted.variances - fitted.noise))
    decoder = Linear(weight, torch.full((6,), fitted.noise, dtype=torch.float64))
    encoding = decoder.encode(torch.from_numpy(x - fitted.means[0]))
    np.testing.assert_allclose(encoding.mu.numpy(), (x - fitted.means[0]) @ fitted.projection.T, atol=1e-12)
    vae = MultimodalVAE({}, {"image": decoder})
    found = bounds(vae, {"image": encoding}, torch.arange(PAIRS), samples=sigma_points(monkeypatch, D))
    assert found["image"].elbo == pytest.approx(likelihood.log_density(fitted, x, 0).mean(), abs=1e-10)


def test_the_bounds_of_a_mixture_meet_a_grid() -> None:
    """One latent dimension: E_q[log p(x, z) - log q(z)] for q the mean of both experts, and of all three posteriors."""
    decoders = {
        m: Linear(torch.tensor([[w]]).double(), torch.tensor([0.5]).double())
        for m, w in (("image", 1.0), ("text", 0.6))
    }
    xs = {"image": torch.tensor([[1.2]]).double(), "text": torch.tensor([[-0.7]]).double()}
    one = {m: decoders[m].encode(x) for m, x in xs.items()}
    many = {m: Encoding(*(part.repeat(64, 1) for part in e)) for m, e in one.items()}
    vae = MultimodalVAE({}, decoders)
    z = torch.linspace(-9, 9, 90_001, dtype=torch.float64)[:, None]
    zero = torch.zeros_like(z)
    log_joint = log_density(z, zero, zero).sum(1) + sum(decoders[m].log_prob(x, z) for m, x in xs.items())
    evidence = torch.logsumexp(log_joint + math.log(18 / 90_000), 0).item()
    experts = [(e.mu, e.logvar) for e in one.values()]
    product = product_of_experts([mu for mu, _ in experts], [v for _, v in experts])
    found: dict[str, Bounds] = {}
    for variant, components in (("mmvae", experts), ("mopoe", [*experts, product])):
        density = torch.stack([log_density(z, mu, v).sum(1) for mu, v in components]).logsumexp(0) - math.log(
            len(components)
        )
        exact = torch.trapezoid(density.exp() * (log_joint - density), z[:, 0]).item()
        found[variant] = bounds(vae, many, torch.arange(64), samples=400, variant=variant)["joint"]  # type: ignore[arg-type]
        assert found[variant].elbo == pytest.approx(exact, abs=0.02)  # 25,600 draws
        weighted = found[variant].importance_weighted
        assert weighted is not None
        assert found[variant].elbo < weighted
        assert weighted == pytest.approx(evidence, abs=0.01)
    assert found["mmvae"].elbo < found["mopoe"].elbo < evidence
