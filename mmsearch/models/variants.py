"""The objectives that the field trains multimodal VAEs with, each a pure function of posteriors and decoders.

    autoencoder   means alone, no divergence                     Ngiam et al. 2011
    joint_elbo    the product of experts alone                   Wu & Goodman 2018, https://arxiv.org/abs/1802.05335
    mvae          the product, and each expert on its own        the same, equation 5
    mmvae         the mixture of experts                         Shi et al. 2019, https://arxiv.org/abs/1911.03393
    mopoe         the mixture of the products of all subsets     Sutter et al. 2021, https://arxiv.org/abs/2105.02470
    mvtcae        the product, held near each expert by KL       Hwang et al. 2021, NeurIPS

In: the posterior of each modality present, `[n, d]`, and for each a function z -> log p(x_m | z), `[n]`. A modality
left out of both has no part in the value and gets no gradient. Out: what is maximised and the divergence inside it,
nats `[n]`. Expectations over a mixture are stratified: one draw from each component, averaged. Next:
`training/objective.py` picks one by name; `evaluation/bounds.py` measures them all by the same yardstick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmsearch.models.gaussian import kl_between, kl_to_prior, log_density, product_of_experts, reparameterise

Variant = Literal["full", "cca", "ae", "elbo", "mvae", "mmvae", "mopoe", "mvtcae", "contrast"]
Gaussian = tuple[Tensor, Tensor]  # mean and log variance, each [n, d]
Posteriors = Mapping[str, Gaussian]
Likelihoods = Mapping[str, Callable[[Tensor], Tensor]]  # of each modality: z [n, d] -> log p(x_m | z) [n]


class Value(NamedTuple):
    """What a variant maximises and the divergence to the prior inside it, nats an item, each `[n]`."""

    value: Tensor
    kl: Tensor


def autoencoder(posteriors: Posteriors, likelihoods: Likelihoods) -> Value:
    """`1/M sum_m log p(X | mu_m)`: no noise, no divergence; the code of each modality reconstructs all of them.

    The bimodal deep autoencoder of Ngiam et al. 2011 (section 4.2), which is asked for both modalities given one.
    """
    value = torch.stack([_likelihood(likelihoods, mu) for mu, _ in posteriors.values()]).mean(0)  # [n]
    return Value(value, torch.zeros_like(value))


def joint_elbo(posteriors: Posteriors, likelihoods: Likelihoods, beta: float = 1.0) -> Value:
    """`E_q(z|X)[log p(X|z)] - beta KL(q(z|X) || p(z))`, q the product of experts: Wu & Goodman 2018, equation 2.

    Nothing here asks one expert alone to be a posterior.
    """
    return _elbo(_product(list(posteriors.values())), likelihoods, beta)


def mvae(posteriors: Posteriors, likelihoods: Likelihoods, beta: float = 1.0) -> Value:
    """`ELBO(X) + sum_m ELBO(x_m)`: Wu & Goodman 2018, equation 5, sub-sampled training.

    Each ELBO is over its own modalities alone: an expert is not asked for the others. With two modalities the random
    subsets of the paper are these three, so none is drawn.
    """
    parts = [joint_elbo(posteriors, likelihoods, beta)]
    if len(posteriors) > 1:
        parts += [_elbo(posterior, {m: likelihoods[m]}, beta) for m, posterior in posteriors.items()]
    return Value(torch.stack([p.value for p in parts]).sum(0), torch.stack([p.kl for p in parts]).sum(0))


def mmvae(posteriors: Posteriors, likelihoods: Likelihoods, beta: float = 1.0) -> Value:
    """`1/M sum_m E_q_m[log p(X|z) + beta (log p(z) - log q(z|X))]`, q = 1/M sum_m q_m: Shi et al. 2019, section 3.

    The stratified ELBO with one draw from each expert (K = 1), not the paper's K-sample bound nor its DReG gradient.
    """
    return mixture_elbo(list(posteriors.values()), likelihoods, beta)


def mixture_elbo(components: Sequence[Gaussian], likelihoods: Likelihoods, beta: float = 1.0) -> Value:
    """The ELBO of a mixture of Gaussians with equal weights, one draw from each component."""
    values, divergences = [], []
    for component in components:
        z = reparameterise(*component)  # [n, d]
        zero = torch.zeros_like(z)
        divergence = mixture_log_density(z, components) - log_density(z, zero, zero).sum(-1)  # [n]
        values.append(_likelihood(likelihoods, z) - beta * divergence)
        divergences.append(divergence)
    return Value(torch.stack(values).mean(0), torch.stack(divergences).mean(0))


def mopoe(posteriors: Posteriors, likelihoods: Likelihoods, beta: float = 1.0) -> Value:
    """`1/S sum_S (E_q_S[log p(X|z)] - beta KL(q_S || p(z)))` over all S non-empty subsets (Sutter et al. 2021, s. 3).

    The divergence of the mixture is replaced by the mean of those of its components, which is never smaller (it is
    convex): what is maximised is a bound of the ELBO. `full` without its auxiliaries is three times this.
    """
    parts = [_elbo(component, likelihoods, beta) for component in subset_products(posteriors).values()]
    return Value(torch.stack([p.value for p in parts]).mean(0), torch.stack([p.kl for p in parts]).mean(0))


def mvtcae(posteriors: Posteriors, likelihoods: Likelihoods, beta: float = 1.0, alpha: float | None = None) -> Value:
    """`(M - a)/M E_q[log p(X|z)] - beta ((1 - a) KL(q || p(z)) + a/M sum_m KL(q || q_m))` (Hwang et al. 2021, s. 3).

    q is the product of experts. `alpha` defaults to M / (M + 1), which weighs all divergences alike; the authors' 5/6
    for five modalities.
    """
    m = len(posteriors)
    a = m / (m + 1) if alpha is None else alpha
    joint = _product(list(posteriors.values()))
    likelihood = _likelihood(likelihoods, reparameterise(*joint))  # [n]
    kl = kl_to_prior(*joint).sum(-1)  # [n]
    apart = torch.stack([kl_between(*joint, *posterior).sum(-1) for posterior in posteriors.values()]).sum(0)  # [n]
    return Value((m - a) / m * likelihood - beta * ((1 - a) * kl + a / m * apart), kl)


def subset_products(posteriors: Posteriors) -> dict[tuple[str, ...], Gaussian]:
    """The product of experts of every non-empty subset, the single ones first."""
    names = list(posteriors)
    subsets = [subset for size in range(1, len(names) + 1) for subset in combinations(names, size)]
    return {subset: _product([posteriors[m] for m in subset]) for subset in subsets}


def mixture_log_density(z: Tensor, components: Sequence[Gaussian]) -> Tensor:
    """`log 1/C sum_c N(z; mu_c, sigma_c^2)` of latents `[n, d]`, nats `[n]`."""
    densities = torch.stack([log_density(z, *component).sum(-1) for component in components])  # [C, n]
    return densities.logsumexp(0) - math.log(len(components))


def posterior_components(variant: Variant, posteriors: Posteriors) -> list[Gaussian]:
    """The variant's own posterior given all modalities, as the components of an equal mixture; mostly just one."""
    if variant == "mmvae":
        return list(posteriors.values())
    if variant == "mopoe":
        return list(subset_products(posteriors).values())
    return [_product(list(posteriors.values()))]


def _elbo(posterior: Gaussian, likelihoods: Likelihoods, beta: float) -> Value:
    kl = kl_to_prior(*posterior).sum(-1)  # [n]
    return Value(_likelihood(likelihoods, reparameterise(*posterior)) - beta * kl, kl)


def _likelihood(likelihoods: Likelihoods, z: Tensor) -> Tensor:
    """`log p(X|z)`: modalities are independent given the latent."""
    return torch.stack([log_prob(z) for log_prob in likelihoods.values()]).sum(0)  # [n]


def _product(experts: Sequence[Gaussian]) -> Gaussian:
    return product_of_experts([mu for mu, _ in experts], [logvar for _, logvar in experts])
