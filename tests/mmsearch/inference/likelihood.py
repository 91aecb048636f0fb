"""The likelihood of probabilistic PCA, by which tests tell that a fit is the best one."""

from __future__ import annotations

import numpy as np

from mmsearch.inference.closed_form import PPCA, Float64Array


def log_density(fitted: PPCA, x: Float64Array, group: int) -> Float64Array:
    """`log N(x; mu_g, W W^T + s2 I)` of rows `[n, f]`, nats `[n]` (Tipping & Bishop 1999, equation 4,
    https://doi.org/10.1111/1467-9868.00196)."""
    centred = x - fitted.means[group]
    inside = centred @ fitted.basis  # [n, d]
    outside = (centred**2).sum(1) - (inside**2).sum(1)  # [n]
    f, d = fitted.basis.shape
    log_determinant = np.log(fitted.variances).sum() + (f - d) * np.log(fitted.noise)
    distance = (inside**2 / fitted.variances).sum(1) + outside / fitted.noise
    density: Float64Array = -0.5 * (f * np.log(2 * np.pi) + log_determinant + distance)
    return density
