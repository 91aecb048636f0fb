"""VAE heads without training: probabilistic PCA, the linear-Gaussian VAE whose optimum is known in closed form.

In: unit-normalised vectors of a backbone, images `[n, f]` and texts `[m, f]`. Out: `LinearHeads`, from features to
posteriors. One subspace serves both modalities, so that their posteriors stay comparable, but each modality has its
own mean: the images and texts of a contrastive backbone lie in two narrow cones (Liang et al. 2022, "Mind the gap",
https://arxiv.org/abs/2203.02053), and one common mean would leave the gap between them in every latent and rank
pictures by it. Next: `backbone_model.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.base.types import Float32Array, Modality, Posterior
from mmsearch.errors import ModelError

Float64Array = NDArray[np.float64]

MIN_VECTORS = 16  # of a modality: with fewer its mean is not known well enough to be subtracted
VECTORS_PER_FEATURE = 4  # from here on the principal axes are estimated well enough
ISOTROPIC_VARIANCE = 0.5


@dataclass(frozen=True, eq=False)
class PPCA:
    """`x = W z + mu_g + noise`, z ~ N(0, I), noise ~ N(0, s2 I): several groups with a mean each, one subspace.

    `W = U (L - s2 I)^0.5`, the rotation left free by the likelihood chosen so that `M = W^T W + s2 I = L` is diagonal:
    the posterior is then exactly the diagonal Gaussian that a VAE's encoder returns.

    Attributes:
        means: one a group `[g, f]`.
        basis: principal axes U, orthonormal columns `[f, d]`.
        variances: the eigenvalues L along them, descending, all above `noise` `[d]`.
        noise: s2, the mean of the other eigenvalues.
    """

    means: Float64Array
    basis: Float64Array
    variances: Float64Array
    noise: float

    @property
    def projection(self) -> Float64Array:
        """`M^-1 W^T`, from centred features to the posterior mean `[d, f]`."""
        scale: Float64Array = np.sqrt(self.variances - self.noise) / self.variances  # [d]
        projection: Float64Array = scale[:, None] * self.basis.T
        return projection

    @property
    def posterior_variance(self) -> Float64Array:
        """`s2 M^-1`, the diagonal `[d]`, below one."""
        return self.noise / self.variances


def fit_ppca(groups: Sequence[NDArray[np.floating]], latent_dim: int) -> PPCA:
    """Maximum likelihood in closed form (Tipping & Bishop 1999, equations 7 and 8, https://doi.org/10.1111/1467-9868.00196).

    With a mean of its own for each group the likelihood is that of the pooled covariance about those means.

    Args:
        groups: rows of each group `[n_g, f]`.
        latent_dim: d, between 1 and f - 1.

    Raises:
        ModelError: too few rows for d, or rows without any spread outside the subspace.
    """
    means = np.stack([np.asarray(rows, np.float64).mean(0) for rows in groups])  # [g, f]
    centred = np.concatenate([np.asarray(rows, np.float64) - m for rows, m in zip(groups, means, strict=True)])
    n, f = centred.shape
    if not 1 <= latent_dim < min(f, n - len(groups) + 1):
        raise ModelError(
            f"closed-form heads of {latent_dim} dimensions need more than {latent_dim + len(groups) - 1} vectors and "
            f"features, found {n} vectors of {f}; index more files or ask for fewer dimensions"
        )
    values, vectors = np.linalg.eigh(centred.T @ centred / n)  # ascending
    noise = float(values[: f - latent_dim].mean())
    variances = values[::-1][:latent_dim].copy()
    if not noise > 1e-12 * variances[0] or not variances[-1] > noise:
        raise ModelError(
            f"the {n} vectors leave no noise outside {latent_dim} dimensions; index more files or ask for fewer"
        )
    return PPCA(means, vectors[:, ::-1][:, :latent_dim].copy(), variances, noise)


@dataclass(frozen=True, eq=False)
class LinearHeads:
    """Features to posteriors by one linear map; the variance is the same for every item.

    Attributes:
        weight: `[d, f]`.
        image_mean: taken off the features of images `[f]`.
        text_mean: taken off those of texts `[f]`.
        logvar: log variance of every posterior, below zero `[d]`.
    """

    weight: Float32Array
    image_mean: Float32Array
    text_mean: Float32Array
    logvar: Float32Array

    @property
    def dim(self) -> int:
        """Latent size d."""
        return len(self.weight)

    @property
    def features(self) -> int:
        """Width f of the features the heads read."""
        return int(self.weight.shape[1])

    def posterior(self, features: Float32Array, modality: Modality) -> Posterior:
        """Unit-normalised features `[n, f]` -> posteriors `[n, d]`."""
        mean = self.image_mean if modality == "image" else self.text_mean
        mu = (features - mean) @ self.weight.T  # [n, d]
        logvar = np.broadcast_to(self.logvar, mu.shape)
        return Posterior(mu.astype(np.float32), np.ascontiguousarray(logvar))


def isotropic_heads(features: int) -> LinearHeads:
    """Heads for a backbone of which no vector was seen yet: its own space, its own ranking.

    The mean is the unit vector times `sqrt(f (1 - v))`, the variance v = 1/2 everywhere: variance and mean square then
    add up to the prior's 1 a dimension, and cosines are exactly the backbone's. The product of an image and a text
    points along the sum of their unit vectors.
    """
    zeros = np.zeros(features, np.float32)
    return _isotropic(zeros, zeros, 1 / features)


def fit_heads(images: Float32Array, texts: Float32Array, latent_dim: int | None = None) -> LinearHeads:
    """Closed-form heads from a library's own vectors.

    From four vectors a feature on, probabilistic PCA. Fewer do not tell the axes (on synthetic pairs in 128 dimensions
    whitening by 200 vectors halved the recall, by 8,000 it added half), but they tell the two means, and taking those
    off is the larger gain: then the axes stay the backbone's, unless `latent_dim` asks for PCA.

    Args:
        images: unit-normalised features `[n, f]`.
        texts: of texts, from the same backbone `[m, f]`.
        latent_dim: d; None takes 256, at most half of f, or leaves the axes alone.

    Raises:
        ModelError: fewer than 16 images or texts, or too few for `latent_dim`.
    """
    for rows, what in ((images, "images"), (texts, "texts")):
        if len(rows) < MIN_VECTORS:
            raise ModelError(
                f"closed-form heads need at least {MIN_VECTORS} {what}, found {len(rows)}; index more of them"
            )
    f = images.shape[1]
    if texts.shape[1] != f:
        raise ModelError(f"images have {f} features, texts {texts.shape[1]}; take both from one backbone")
    if latent_dim is None and len(images) + len(texts) < VECTORS_PER_FEATURE * f:
        centred = np.concatenate([images - images.mean(0), texts - texts.mean(0)])
        return _isotropic(images.mean(0), texts.mean(0), float(centred.var(0).mean()))
    fitted = fit_ppca([images, texts], min(256, f // 2) if latent_dim is None else latent_dim)
    return LinearHeads(
        weight=fitted.projection.astype(np.float32),
        image_mean=fitted.means[0].astype(np.float32),
        text_mean=fitted.means[1].astype(np.float32),
        logvar=np.log(fitted.posterior_variance).astype(np.float32),
    )


def _isotropic(image_mean: Float32Array, text_mean: Float32Array, variance: float) -> LinearHeads:
    """One scale for every axis; `variance` is that of the centred features, mean over the axes."""
    features = len(image_mean)
    scale = np.sqrt((1 - ISOTROPIC_VARIANCE) / variance)
    logvar = np.full(features, np.log(ISOTROPIC_VARIANCE), np.float32)
    return LinearHeads((np.eye(features) * scale).astype(np.float32), image_mean, text_mean, logvar)
