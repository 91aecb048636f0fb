"""Every objective of the literature against its formula on numbers for a page, and what each does to a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmsearch.errors import TrainingError
from mmsearch.models import variants
from mmsearch.models.heads import FeatureDecoder
from mmsearch.models.vae import Encoding, MultimodalVAE
from mmsearch.models.variants import Gaussian, Likelihoods, Posteriors, Value, Variant
from mmsearch.training.objective import Contrast, objective
from mmsearch.training.recipe import Objective

STEP = 0.5  # every draw is mu + STEP * sigma
# one item, one dimension: (mean, variance) of each posterior, and x_m ~ N(z + offset, 1) seen at 0
Q = {"image": (1.0, 0.25), "text": (-0.5, 0.5)}
PRODUCT = (0.6, 0.2)  # precision 4 + 2 - 1 = 5, mean (4 * 1 - 2 * 0.5) / 5
OFFSET = {"image": 0.3, "text": -0.2}


@pytest.fixture
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "reparameterise", lambda mu, logvar: mu + STEP * (0.5 * logvar).exp())


def tensors(posterior: tuple[float, float]) -> Gaussian:
    mean, variance = (torch.tensor([[value]], dtype=torch.float64) for value in posterior)
    return mean, variance.log()


def posteriors() -> Posteriors:
    return {m: tensors(q) for m, q in Q.items()}


def likelihoods() -> Likelihoods:
    def of(offset: float) -> Callable[[Tensor], Tensor]:
        return lambda z: -0.5 * (math.log(2 * math.pi) + (z + offset).square()).sum(-1)

    return {m: of(offset) for m, offset in OFFSET.items()}


def log_p(z: float, *modalities: str) -> float:
    return sum(-0.5 * (math.log(2 * math.pi) + (z + OFFSET[m]) ** 2) for m in modalities)


def draw(q: tuple[float, float]) -> float:
    return q[0] + STEP * math.sqrt(q[1])


def kl(q: tuple[float, float], p: tuple[float, float] = (0.0, 1.0)) -> float:
    return 0.5 * (math.log(p[1] / q[1]) + (q[1] + (q[0] - p[0]) ** 2) / p[1] - 1)


def log_normal(z: float, q: tuple[float, float]) -> float:
    return -0.5 * (math.log(2 * math.pi * q[1]) + (z - q[0]) ** 2 / q[1])


def elbo(q: tuple[float, float], beta: float, *modalities: str) -> float:
    return log_p(draw(q), *modalities) - beta * kl(q)


BOTH = ("image", "text")
IMAGE, TEXT = Q["image"], Q["text"]


def mixture_by_hand(beta: float) -> float:
    values = []
    for q in (IMAGE, TEXT):
        z = draw(q)
        mixture = math.log(0.5 * math.exp(log_normal(z, IMAGE)) + 0.5 * math.exp(log_normal(z, TEXT)))
        values.append(log_p(z, *BOTH) + beta * (log_normal(z, (0.0, 1.0)) - mixture))
    return sum(values) / 2


def mvtcae_by_hand(beta: float, alpha: float) -> float:
    apart = kl(PRODUCT, IMAGE) + kl(PRODUCT, TEXT)
    divergence = (1 - alpha) * kl(PRODUCT) + alpha / 2 * apart
    return (2 - alpha) / 2 * log_p(draw(PRODUCT), *BOTH) - beta * divergence


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_each_variant_is_its_formula(beta: float) -> None:
    expected = {
        variants.joint_elbo: elbo(PRODUCT, beta, *BOTH),
        variants.mvae: elbo(PRODUCT, beta, *BOTH) + elbo(IMAGE, beta, "image") + elbo(TEXT, beta, "text"),
        variants.mmvae: mixture_by_hand(beta),
        variants.mopoe: (elbo(IMAGE, beta, *BOTH) + elbo(TEXT, beta, *BOTH) + elbo(PRODUCT, beta, *BOTH)) / 3,
        variants.mvtcae: mvtcae_by_hand(beta, 2 / 3),
    }
    for variant, value in expected.items():
        assert variant(posteriors(), likelihoods(), beta).value.item() == pytest.approx(value, rel=1e-12), variant
    found = variants.mvtcae(posteriors(), likelihoods(), beta, alpha=0.9).value.item()
    assert found == pytest.approx(mvtcae_by_hand(beta, 0.9), rel=1e-12)


def test_the_autoencoder_decodes_the_means() -> None:
    found = variants.autoencoder(posteriors(), likelihoods())
    assert found.value.item() == pytest.approx((log_p(1.0, *BOTH) + log_p(-0.5, *BOTH)) / 2, rel=1e-12)
    assert found.kl.item() == 0


@pytest.mark.usefixtures("no_chance")
def test_the_divergences_reported_are_those_to_the_prior() -> None:
    assert variants.mvae(posteriors(), likelihoods()).kl.item() == pytest.approx(kl(PRODUCT) + kl(IMAGE) + kl(TEXT))
    assert variants.mopoe(posteriors(), likelihoods()).kl.item() == pytest.approx(
        (kl(PRODUCT) + kl(IMAGE) + kl(TEXT)) / 3
    )
    assert variants.mvtcae(posteriors(), likelihoods()).kl.item() == pytest.approx(kl(PRODUCT))


def many(rows: int) -> tuple[Posteriors, Likelihoods]:
    return {m: (mu.expand(rows, 1), v.expand(rows, 1)) for m, (mu, v) in posteriors().items()}, likelihoods()


def test_the_divergence_of_a_mixture_is_what_a_grid_says() -> None:
    """And MoPoE's stands above it: the divergence is convex."""
    torch.manual_seed(0)
    for count, variant in ((2, variants.mmvae), (3, variants.mopoe)):
        components = [IMAGE, TEXT, PRODUCT][:count]
        grid = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
        density = sum(torch.distributions.Normal(m, v**0.5).log_prob(grid).exp() for m, v in components) / count
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid)
        exact = torch.trapezoid(torch.where(density > 0, density * (density.log() - prior), 0.0), grid).item()
        sampled = variants.mixture_elbo([tensors(q) for q in components], many(200_000)[1]).kl
        assert sampled.shape == (1,)
        mixed = [(m.expand(200_000, 1), v.expand(200_000, 1)) for m, v in map(tensors, components)]
        assert variants.mixture_elbo(mixed, likelihoods()).kl.mean().item() == pytest.approx(exact, abs=5e-3)
        if variant is variants.mopoe:
            assert variant(posteriors(), likelihoods()).kl.item() > exact


def test_subsets_are_all_but_the_empty_one() -> None:
    three = {**posteriors(), "sound": tensors((0.0, 0.9))}
    found = variants.subset_products(three)
    assert list(found) == [
        ("image",), ("text",), ("sound",), ("image", "text"), ("image", "sound"), ("text", "sound"),
        ("image", "text", "sound"),
    ]  # fmt: skip
    mu, logvar = found["image", "text"]
    assert (mu.item(), logvar.exp().item()) == pytest.approx(PRODUCT)


@pytest.mark.usefixtures("no_chance")
def test_with_one_modality_all_are_the_vae() -> None:
    one = {"image": posteriors()["image"]}
    seen = {"image": likelihoods()["image"]}
    vae = elbo(IMAGE, 1.0, "image")
    for variant in (variants.joint_elbo, variants.mvae, variants.mopoe):
        assert variant(one, seen, 1.0).value.item() == pytest.approx(vae, rel=1e-12)
    z = draw(IMAGE)
    sampled = log_p(z, "image") + log_normal(z, (0.0, 1.0)) - log_normal(z, IMAGE)
    assert variants.mmvae(one, seen).value.item() == pytest.approx(sampled, rel=1e-12)
    assert variants.mvtcae(one, seen).value.item() == pytest.approx(vae / 2, rel=1e-12)  # both terms weigh 1 - 1/2


ALL: dict[str, Callable[[Posteriors, Likelihoods], Value]] = {
    "ae": variants.autoencoder,
    "elbo": variants.joint_elbo,
    "mvae": variants.mvae,
    "mmvae": variants.mmvae,
    "mopoe": variants.mopoe,
    "mvtcae": variants.mvtcae,
}


@pytest.mark.parametrize("name", ALL)
def test_a_modality_that_is_missing_gets_exactly_no_gradient(name: str) -> None:
    present, missing = (tuple(t.clone().requires_grad_() for t in tensors(Q[m])) for m in BOTH)
    value = ALL[name]({"image": (present[0], present[1])}, {"image": likelihoods()["image"]}).value.sum()
    (value + 0 * (missing[0] + missing[1]).sum()).backward()
    assert [t.grad.abs().max().item() for t in missing if t.grad is not None] == [0, 0]
    assert present[0].grad is not None
    assert present[0].grad.abs().min() > 0


def encodings() -> dict[str, Encoding]:
    def one(rows: int, features: int) -> Encoding:
        logvar = -torch.rand(rows, 4) - 0.1
        return Encoding(torch.randn(rows, 4).requires_grad_(), logvar.requires_grad_(), torch.randn(rows, features))

    return {"image": one(3, 6), "text": one(5, 5)}


PHOTO, WORDING = torch.tensor([0, 1, 2, 1, 0]), torch.arange(5)


def small() -> MultimodalVAE:
    return MultimodalVAE({}, {"image": FeatureDecoder(4, 8, 6), "text": FeatureDecoder(4, 8, 5)})


@pytest.mark.parametrize("name", [*ALL, "full", "contrast"])
def test_gradient_flows_where_it_should(name: Variant) -> None:
    torch.manual_seed(0)
    parts, vae = encodings(), small()
    terms = objective(vae, Contrast(0.1), Objective(variant=name), parts, PHOTO, WORDING)
    terms.total.backward()
    for encoding in parts.values():
        assert encoding.mu.grad is not None
        assert encoding.mu.grad.isfinite().all()
        assert encoding.mu.grad.abs().min() > 0
        certain = name in ("ae", "contrast")  # their variances have no part in anything
        assert (encoding.logvar.grad is None) == certain
    decoded = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in vae.parameters()]
    assert all(decoded) == (name != "contrast")
    assert any(decoded) == (name != "contrast")


def test_full_without_its_auxiliaries_is_three_times_mopoe() -> None:
    parts, vae = encodings(), small()
    found = []
    for weights in (Objective(gamma=0.0, eta=0.0, beta=0.7), Objective(variant="mopoe", beta=0.7)):
        torch.manual_seed(1)
        found.append(objective(vae, Contrast(0.1), weights, parts, PHOTO, WORDING).total)
    torch.testing.assert_close(found[0], 3 * found[1])


def test_contrast_is_the_last_term_alone() -> None:
    parts, vae = encodings(), small()
    found = objective(vae, Contrast(0.1), Objective(variant="contrast", eta=7.0), parts, PHOTO, WORDING)
    expected = 7 * Contrast(0.1)(parts["image"].mu, parts["text"].mu, PHOTO, WORDING)
    torch.testing.assert_close(found.total, expected)
    assert found.elbo == found.kl == found.agreement == 0


def test_what_has_no_gradient_is_refused() -> None:
    with pytest.raises(TrainingError, match="'cca' has no gradient"):
        objective(small(), Contrast(0.1), Objective(variant="cca"), encodings(), PHOTO, WORDING)
