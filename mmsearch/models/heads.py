"""From a trunk's map of states to a posterior, and from a latent back to the trunk's features.

In: feature maps or token states. Out: pooled features `[n, f]`, posteriors `[n, d]`, reconstructions. Next: `vae.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.models.gaussian import log_density


class AttentionPool(nn.Module):
    """Weighted mean over positions, one weighting for each slice of the channels; starts as the plain mean."""

    def __init__(self, channels: int, groups: int = 8) -> None:
        super().__init__()
        self.groups = groups
        self.score = nn.Linear(channels, groups)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """States `[n, t, c]`, mask bool `[n, t]` of the positions that count -> pooled `[n, c]`."""
        n, t, c = states.shape
        scores = self.score(states)  # [n, t, g]
        if mask is not None:
            scores = scores.masked_fill(~mask[:, :, None], -1e4)
        weights: Tensor = scores.softmax(1)[..., None]  # [n, t, g, 1]
        return (weights * states.view(n, t, self.groups, c // self.groups)).sum(1).reshape(n, c)


class GaussianHead(nn.Module):
    """Features -> posterior. One hidden layer beside a linear path, so that it starts near linear CCA.

    Features are standardised with the training set's mean and spread, which travel in the checkpoint.
    """

    mean: Tensor  # [f]
    spread: Tensor  # [f]

    def __init__(self, features: int, hidden: int, latent: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(features, hidden)
        self.mu = nn.Linear(hidden, latent)
        self.linear = nn.Linear(features, latent, bias=False)
        self.logvar = nn.Linear(hidden, latent)
        nn.init.zeros_(self.logvar.weight)
        nn.init.zeros_(self.logvar.bias)

    def standardise(self, features: Tensor) -> Tensor:
        """Features `[n, f]` in units of the training set's spread; also what the decoder reconstructs."""
        return (features - self.mean) / self.spread

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[n, f]` -> mean and log variance, each `[n, d]`; the variance stays below one."""
        x = self.dropout(self.standardise(features))
        h = self.dropout(F.gelu(self.hidden(x)))
        # -softplus keeps sigma^2 < 1: every expert of the product then adds information
        return self.mu(h) + self.linear(x), -F.softplus(self.logvar(h))

    def fit_standardisation(self, features: Tensor) -> None:
        """Take mean and spread from features `[n, f]` of the training set."""
        self.mean.copy_(features.mean(0))
        self.spread.copy_(features.std(0).clamp_min(1e-3))


class FeatureDecoder(nn.Module):
    """`p(x|z)` over standardised features: a Gaussian with one learned variance a dimension (sigma-VAE).

    Rybkin et al. 2021, https://arxiv.org/abs/2006.13202.
    """

    def __init__(self, latent: int, hidden: int, features: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(latent, hidden)
        self.out = nn.Linear(hidden, features)
        self.logvar = nn.Parameter(torch.zeros(features))

    def forward(self, z: Tensor) -> Tensor:
        """Latents `[n, d]` -> means of the standardised features `[n, f]`."""
        mean: Tensor = self.out(F.gelu(self.hidden(z)))
        return mean

    def log_prob(self, target: Tensor, z: Tensor) -> Tensor:
        """`log p(target | z)` of each item, nats `[n]`."""
        return log_density(target, self(z), self.logvar.clamp_min(-6.0)).sum(-1)
