"""Algebra of diagonal Gaussians: divergence, product of experts, sampling. Pure functions on torch tensors.

In: means and log variances `[n, d]`. Out: tensors. Used by `vae.py` and by the objective.
`inference/posterior.py` holds the same product in numpy, for search without torch; a test keeps the two equal.
The mathematics in one place: `README.md`. Next: `vae.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def kl_to_prior(mu: Tensor, logvar: Tensor) -> Tensor:
    """`KL(N(mu, exp(logvar)) || N(0, 1))` of each dimension, nats `[n, d]`.

    Kingma & Welling 2014, appendix B, https://arxiv.org/abs/1312.6114.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def kl_between(mu_p: Tensor, logvar_p: Tensor, mu_q: Tensor, logvar_q: Tensor) -> Tensor:
    """`KL(p || q)` of diagonal Gaussians, each dimension, nats `[n, d]`."""
    return 0.5 * (logvar_q - logvar_p + ((mu_p - mu_q).square() + logvar_p.exp()) / logvar_q.exp() - 1)


def log_density(x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """`log N(x; mu, exp(logvar))` of each dimension, nats, the shape of `x`."""
    return -0.5 * (LOG_2PI + logvar + (x - mu).square() / logvar.exp())


def reparameterise(mu: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One sample `z = mu + sigma * eps` with the gradient going through (Kingma & Welling 2014, s. 2.4)."""
    eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    return mu + (0.5 * logvar).exp() * eps  # [n, d]


def product_of_experts(mus: Sequence[Tensor], logvars: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Exact product of the posteriors of several modalities with the prior N(0, I).

    Each posterior is prior times evidence, so the fused precision is `1 + sum_m (1/sigma_m^2 - 1)` and the mean is the
    precision-weighted sum over it (PoE: Hinton 2002, https://doi.org/10.1162/089976602760128018; Wu & Goodman 2018,
    equation 4, https://arxiv.org/abs/1802.05335). One modality alone comes back
    unchanged; one that is left out has no part in the sum and so exactly zero gradient.

    Args:
        mus: means of the modalities present, each `[n, d]`.
        logvars: their log variances, each `[n, d]`, below zero (an expert that adds information).

    Returns:
        The fused mean and log variance, each `[n, d]`.

    Raises:
        ValueError: where no modality is given.
    """
    if not mus or len(mus) != len(logvars):
        raise ValueError(
            f"product of experts over {len(mus)} means and {len(logvars)} log variances; one of each needed"
        )
    precisions = [(-logvar).exp() for logvar in logvars]
    precision = torch.stack(precisions).sum(0) - (len(mus) - 1)  # [n, d], the prior counted once
    mu = torch.stack([p * m for p, m in zip(precisions, mus, strict=True)]).sum(0) / precision
    return mu, -precision.log()
