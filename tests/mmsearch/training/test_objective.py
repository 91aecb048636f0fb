"""The objective against values written out by hand and against torch.distributions, and each term switched off."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from mmsearch.models.gaussian import product_of_experts
from mmsearch.models.heads import FeatureDecoder
from mmsearch.models.vae import Encoding, MultimodalVAE
from mmsearch.training.objective import Contrast, Terms, objective
from mmsearch.training.recipe import Objective

D = 4
PLAIN = Objective(elbo=1.0, beta=1.0, gamma=0.0, eta=0.0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def vae() -> MultimodalVAE:
    return MultimodalVAE({}, {"image": FeatureDecoder(D, 8, 6), "text": FeatureDecoder(D, 8, 5)})


def encodings(n: int = 3, t: int = 5) -> dict[str, Encoding]:
    def one(rows: int, features: int) -> Encoding:
        logvar = -F.softplus(torch.randn(rows, D))
        return Encoding(torch.randn(rows, D).requires_grad_(), logvar.requires_grad_(), torch.randn(rows, features))

    return {"image": one(n, 6), "text": one(t, 5)}


PHOTO = torch.tensor([0, 1, 2, 1, 0])  # the photo of each of five texts
DIFFERENT = torch.arange(5)  # no two texts say the same


def info_nce(image: Tensor, text: Tensor, photo: list[int], wording: list[int], temperature: float) -> float:
    """Written out: what each text makes of the photos and each photo of the texts, over what may be compared."""
    v, t = F.normalize(image, dim=1).tolist(), F.normalize(text, dim=1).tolist()

    def weight(i: int, j: int) -> float:
        return math.exp(sum(a * b for a, b in zip(v[i], t[j], strict=True)) / temperature)

    def comparable(i: int, j: int) -> bool:
        said = {wording[k] for k in range(len(t)) if photo[k] == i}
        return photo[j] == i or wording[j] not in said

    to_image = [
        -math.log(weight(photo[j], j) / sum(weight(i, j) for i in range(len(v)) if comparable(i, j)))
        for j in range(len(t))
    ]
    to_text = []
    for i in range(len(v)):
        all_texts = sum(weight(i, j) for j in range(len(t)) if comparable(i, j))
        own = [-math.log(weight(i, j) / all_texts) for j in range(len(t)) if photo[j] == i]
        to_text.append(sum(own) / len(own))
    return 0.5 * (sum(to_image) / len(to_image) + sum(to_text) / len(to_text))


def test_info_nce_of_two_orthogonal_pairs() -> None:
    """Right cosine 1, wrong cosine 0: each direction is log(1 + e^(-1/temperature)); lengths play no part."""
    found = Contrast(0.5)(3 * torch.eye(2), 7 * torch.eye(2), torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert found.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)


@pytest.mark.parametrize("wording", [[0, 1, 2, 3, 4], [0, 1, 1, 3, 4], [0, 1, 2, 0, 4], [7, 7, 7, 7, 7]])
def test_info_nce_written_out(wording: list[int]) -> None:
    image, text = torch.randn(3, D), torch.randn(5, D)
    found = Contrast(0.2)(image, text, PHOTO, torch.tensor(wording))
    assert found.item() == pytest.approx(info_nce(image, text, PHOTO.tolist(), wording, 0.2), rel=1e-4)


def test_the_same_words_are_never_negatives() -> None:
    """Two photos that are both called "dog": neither is pushed from the other's word."""
    image, text = torch.randn(2, D).requires_grad_(), torch.randn(2, D).requires_grad_()
    loss = Contrast(0.1)(image, text, torch.tensor([0, 1]), torch.tensor([9, 9]))
    loss.backward()
    assert loss.item() == 0
    assert image.grad is not None
    assert text.grad is not None
    assert image.grad.abs().max() == text.grad.abs().max() == 0
    apart = Contrast(0.1)(image, text, torch.tensor([0, 1]), torch.tensor([8, 9]))
    assert apart.item() > 0.01


def test_the_temperature_learns_and_has_a_floor() -> None:
    contrast = Contrast(0.05)
    assert contrast.log_scale.exp().item() == pytest.approx(20)
    contrast(torch.randn(3, D), torch.randn(5, D), PHOTO, DIFFERENT).backward()
    assert contrast.log_scale.grad is not None
    assert contrast.log_scale.grad.abs() > 0
    image, text = torch.randn(3, D), torch.randn(5, D)
    assert Contrast(1e-4)(image, text, PHOTO, DIFFERENT) == Contrast(0.01)(image, text, PHOTO, DIFFERENT)


def run(vae: MultimodalVAE, weights: Objective, parts: dict[str, Encoding]) -> Terms:
    torch.manual_seed(3)  # the draws of z
    return objective(vae, Contrast(0.1), weights, parts, PHOTO, DIFFERENT)


def test_elbo_equals_torch_distributions(vae: MultimodalVAE) -> None:
    parts = encodings()
    weights = replace(PLAIN, beta=0.7, gamma=0.3, eta=2.0)
    found = run(vae, weights, parts)
    pairs = {"image": Encoding(*(part[PHOTO] for part in parts["image"])), "text": parts["text"]}
    posteriors = {m: (e.mu, e.logvar) for m, e in pairs.items()}
    posteriors["joint"] = product_of_experts([e.mu for e in pairs.values()], [e.logvar for e in pairs.values()])
    normals = {name: Normal(mu, (0.5 * logvar).exp()) for name, (mu, logvar) in posteriors.items()}
    torch.manual_seed(3)
    elbo, kl = torch.zeros(()), torch.zeros(())
    for name in ("image", "text", "joint"):
        z = normals[name].loc + normals[name].scale * torch.randn(5, D)
        for m, e in pairs.items():
            decoder = vae.decoders[m]
            assert isinstance(decoder, FeatureDecoder)
            elbo = elbo + Normal(decoder(z), (0.5 * decoder.logvar).exp()).log_prob(e.target).sum(1).mean()
        divergence = kl_divergence(normals[name], Normal(torch.zeros(5, D), torch.ones(5, D))).sum(1).mean()
        elbo, kl = elbo - 0.7 * divergence, kl + divergence
    agreement = sum(0.5 * kl_divergence(normals["joint"], normals[m]).sum(1).mean() for m in pairs)
    contrast = Contrast(0.1)(parts["image"].mu, parts["text"].mu, PHOTO, DIFFERENT)
    torch.testing.assert_close(found.elbo, elbo.detach())
    torch.testing.assert_close(found.kl, kl.detach())
    torch.testing.assert_close(found.agreement, agreement.detach())
    torch.testing.assert_close(found.total, -(elbo - 0.3 * agreement) + 2.0 * contrast)
    assert found.total.requires_grad
    assert not found.elbo.requires_grad


def test_a_term_of_weight_zero_is_off(vae: MultimodalVAE) -> None:
    parts = encodings()
    full = run(vae, Objective(elbo=1.0, beta=1.0, gamma=0.1, eta=5.0), parts)
    assert min(full.kl, full.agreement, full.contrast) > 0
    no_contrast = run(vae, replace(PLAIN, gamma=0.1), parts)
    assert no_contrast.contrast == 0
    torch.testing.assert_close(no_contrast.total, full.total - 5.0 * full.contrast)
    no_agreement = run(vae, replace(PLAIN, eta=5.0), parts)
    assert no_agreement.agreement == 0
    torch.testing.assert_close(no_agreement.total, full.total - 0.1 * full.agreement)
    contrast_alone = run(vae, Objective(elbo=0.0, gamma=0.1, eta=5.0), parts)
    assert contrast_alone.elbo == contrast_alone.kl == contrast_alone.agreement == 0
    torch.testing.assert_close(contrast_alone.total, 5.0 * full.contrast)
    autoencoder = run(vae, replace(PLAIN, beta=0.0), parts)
    torch.testing.assert_close(-autoencoder.total, full.elbo + full.kl)


def test_a_posterior_left_out_gets_no_gradient(vae: MultimodalVAE) -> None:
    parts = encodings()
    run(vae, replace(PLAIN, subsets=("image",)), parts).total.backward()
    assert parts["text"].mu.grad is None
    assert parts["image"].mu.grad is not None
    assert parts["image"].mu.grad.abs().min() > 0
    joint = encodings()
    run(vae, replace(PLAIN, subsets=("joint",)), joint).total.backward()
    for e in joint.values():
        assert e.mu.grad is not None
        assert e.logvar.grad is not None
