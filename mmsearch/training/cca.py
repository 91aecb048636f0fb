"""Linear CCA in closed form, read as the linear-Gaussian multimodal VAE that it is.

Bach & Jordan 2005, https://www.di.ens.fr/~fbach/probacca.pdf:

    z ~ N(0, I),  x_m = mean_m + W_m z + e_m,  e_m ~ N(0, Psi_m)

With `W_m = S_m U_m R^(1/2)` (U the canonical directions, R the correlations, S the covariances) the posterior given
one modality has the diagonal variance 1 - R, and the product of experts is exactly the posterior given both: the ELBO
of this model is its likelihood. In: paired features. Out: a `CCA`, and heads that compute it. Next: `table.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmsearch.models.gaussian import LOG_2PI
from mmsearch.models.heads import FeatureDecoder, GaussianHead
from mmsearch.models.vae import MultimodalVAE

Float64 = NDArray[np.float64]
RIDGE = 1.0  # best recall of 0.03, 0.1, 0.3, 1, 3 on 1,000 of the training photos held out
_EDGE = 1e-6  # correlations are kept this far from 0 and 1: a variance of 0 has no logarithm


@dataclass(frozen=True, eq=False)
class CCA:
    """Both modalities, image first.

    Attributes:
        means: `[f]` and `[g]`.
        covariances: S with the ridge on its diagonal, `[f, f]` and `[g, g]`.
        directions: U, canonical directions `[f, d]` and `[g, d]`, `U^T S U = I`.
        correlations: R, descending, inside (0, 1) `[d]`.
    """

    means: tuple[Float64, Float64]
    covariances: tuple[Float64, Float64]
    directions: tuple[Float64, Float64]
    correlations: Float64

    def projection(self, m: int) -> Float64:
        """`R^(1/2) U^T`, from centred features to the posterior mean `[d, f]` (Bach & Jordan 2005, section 4.2)."""
        projection: Float64 = np.sqrt(self.correlations)[:, None] * self.directions[m].T
        return projection

    def loading(self, m: int) -> Float64:
        """`W_m = S U R^(1/2)` `[f, d]`."""
        loading: Float64 = self.covariances[m] @ self.projection(m).T
        return loading

    def noise(self, m: int) -> Float64:
        """`Psi_m = S - W W^T` `[f, f]`, a full matrix."""
        loading = self.loading(m)
        noise: Float64 = self.covariances[m] - loading @ loading.T
        return noise


def fit_cca(images: Float64, texts: Float64, photo: NDArray[np.int64], latent_dim: int, ridge: float) -> CCA:
    """Regularised CCA: singular vectors of `S_1^(-1/2) S_12 S_2^(-1/2)` (Hotelling 1936).

    https://doi.org/10.1093/biomet/28.3-4.321; the ridge after Vinod 1976, https://doi.org/10.1016/0304-4076(76)90010-5.

    Args:
        images: features of photos `[n, f]`.
        texts: features of texts `[t, g]`.
        photo: the row of `images` that each text shows `[t]`.
        latent_dim: d, at most the smaller of f and g.
        ridge: added to the diagonals of both covariances, in units of the features' variance.

    Raises:
        ValueError: more dimensions than features.
    """
    x, y = np.asarray(images, np.float64), np.asarray(texts, np.float64)
    if latent_dim > min(x.shape[1], y.shape[1]):
        raise ValueError(f"{latent_dim} canonical directions of {x.shape[1]} and {y.shape[1]} features; ask for fewer")
    counts = np.bincount(photo, minlength=len(x)).astype(np.float64)  # [n] a photo counts once for each of its texts
    means = counts @ x / len(y), y.mean(0)
    x, y = x - means[0], y - means[1]
    said = np.zeros((len(x), y.shape[1]))
    np.add.at(said, photo, y)  # the texts of each photo, summed [n, g]
    covariances = tuple(s / len(y) + ridge * np.eye(len(s)) for s in ((x * counts[:, None]).T @ x, y.T @ y))
    roots = [_inverse_root(s) for s in covariances]
    left, correlations, right = np.linalg.svd(roots[0] @ (x.T @ said / len(y)) @ roots[1])
    directions = roots[0] @ left[:, :latent_dim], roots[1] @ right[:latent_dim].T
    return CCA(means, covariances, directions, correlations[:latent_dim].clip(_EDGE, 1 - _EDGE))  # type: ignore[arg-type]


def fit_heads(vae: MultimodalVAE, images: Tensor, texts: Tensor, photo: Tensor) -> CCA:
    """Fit CCA on features as the heads standardise them, all captions at once, and write it into the heads."""
    heads = [cast(GaussianHead, vae.encoders[modality].head) for modality in ("image", "text")]
    x, y = (head.standardise(part).double().cpu() for head, part in zip(heads, (images, texts), strict=True))
    cca = fit_cca(x.numpy(), y.numpy(), photo.numpy(), heads[0].mu.out_features, RIDGE)
    write_heads(cca, vae)
    return cca


def write_heads(cca: CCA, vae: MultimodalVAE) -> None:
    """Make the encoders' heads compute the posteriors of `cca`, fitted on what the heads standardise.

    Decoders that cannot hold its full noise matrix are told to know nothing of the latent: a standard Gaussian.
    """
    for m, modality in enumerate(("image", "text")):
        head = cast(GaussianHead, vae.encoders[modality].head)
        projection = torch.from_numpy(cca.projection(m))
        odds = torch.from_numpy(cca.correlations / (1 - cca.correlations))
        with torch.no_grad():
            head.mu.weight.zero_()
            head.logvar.weight.zero_()
            head.linear.weight.copy_(projection)
            head.mu.bias.copy_(-projection @ torch.from_numpy(cca.means[m]))
            head.logvar.bias.copy_(odds.log())  # -softplus of it is log(1 - R)
            decoder = vae.decoders[modality]
            if isinstance(decoder, FeatureDecoder):
                for parameter in (decoder.out.weight, decoder.out.bias, decoder.logvar):
                    parameter.zero_()


class LinearDecoder(nn.Module):
    """`p(x_m|z) = N(mean + W z, Psi)` with the full noise matrix of a `CCA`."""

    mean: Tensor  # [f]
    loading: Tensor  # [f, d]
    whiten: Tensor  # [f, f], its square is the inverse of Psi
    log_determinant: Tensor  # of Psi

    def __init__(self, cca: CCA, m: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        noise = cca.noise(m)
        self.register_buffer("mean", torch.from_numpy(cca.means[m]).to(dtype))
        self.register_buffer("loading", torch.from_numpy(cca.loading(m)).to(dtype))
        self.register_buffer("whiten", torch.from_numpy(_inverse_root(noise)).to(dtype))
        self.register_buffer("log_determinant", torch.tensor(np.linalg.slogdet(noise)[1], dtype=dtype))

    def forward(self, z: Tensor) -> Tensor:
        """Latents `[n, d]` -> means of the features `[n, f]`."""
        means: Tensor = self.mean + z @ self.loading.T
        return means

    def log_prob(self, target: Tensor, z: Tensor) -> Tensor:
        """`log p(target | z)` of each item, nats `[n]`."""
        white = (target - self(z)) @ self.whiten  # [n, f]
        density: Tensor = -0.5 * (target.shape[1] * LOG_2PI + self.log_determinant + white.square().sum(-1))
        return density


def _inverse_root(matrix: Float64) -> Float64:
    """The symmetric `matrix^(-1/2)`."""
    values, vectors = np.linalg.eigh(matrix)
    root: Float64 = (vectors / np.sqrt(values)) @ vectors.T
    return root
