"""A convolutional image encoder and decoder at 64x64, trained from nothing: the small model one can watch learn.

In: pictures `[n, 3, 64, 64]`. Out: an `Encoding`, and pictures from latents. Four stride-2 stages each way, as in
Radford et al. 2016 (DCGAN, https://arxiv.org/abs/1511.06434), with group norm, so that a batch of one is encoded as in
any batch. Next: `gru.py`, its partner for text; `vae.py` puts both around one latent space.

The likelihood is a Gaussian with one learned variance for all pixels (sigma-VAE, Rybkin et al. 2021,
https://arxiv.org/abs/2006.13202), as the feature decoders have one: reconstruction and KL are then in balance at beta =
1. A fixed variance makes beta a number to tune again for every data set; a discretised logistic (Salimans et al. 2017)
counts bits, which search never asks for. The variance has a floor of about five grey levels: on flat scenes the density
has no upper bound, and an ELBO that chases it forgets the latents.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.models.gaussian import log_density
from mmsearch.models.vae import Encoding

SIDE_PX = 64
_LOGVAR_FLOOR = 2 * math.log(5 / 255)
_LOGVAR_START = 2 * math.log(0.2)  # the spread of pixels about a blurred picture
_LOGVAR_GAIN = 20.0  # one scalar takes Adam's small steps; without the gain it would need thousands of them
_GROUPS = 8


class ConvImageEncoder(nn.Module):
    """Pictures to posteriors; `width` channels after the first stage, doubled in each of the three that follow."""

    def __init__(self, latent: int, width: int = 16) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        stages: list[nn.Module] = []
        for before, after in pairwise(widths):
            stages += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GroupNorm(_GROUPS, after), nn.SiLU()]
        self.stages = nn.Sequential(*stages)
        self.mu = nn.Linear(8 * width * 16, latent)
        self.logvar = nn.Linear(8 * width * 16, latent)

    def forward(self, pictures: Tensor) -> Encoding:
        """Pictures `[n, 3, 64, 64]`, uint8 or float in 0..1 -> posterior; the target is the picture in 0..1."""
        pixels = unit_pixels(pictures)  # [n, 3, 64, 64]
        features = self.stages(2 * pixels - 1).flatten(1)  # [n, 8 * width * 4 * 4]
        return Encoding(self.mu(features), -F.softplus(self.logvar(features)), pixels.detach())


class ConvImageDecoder(nn.Module):
    """Latents to pictures, the encoder mirrored."""

    def __init__(self, latent: int, width: int = 16) -> None:
        super().__init__()
        widths = [8 * width, 4 * width, 2 * width, width]
        self.start = nn.Linear(latent, widths[0] * 16)
        stages: list[nn.Module] = []
        for before, after in pairwise(widths):
            stages += [
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1),
                nn.GroupNorm(_GROUPS, after),
                nn.SiLU(),
            ]
        self.stages = nn.Sequential(*stages, nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1))
        self.scale = nn.Parameter(torch.zeros(()))

    @property
    def logvar(self) -> Tensor:
        """Log variance of a pixel, a scalar above its floor; softplus keeps a gradient there, a clamp would not."""
        return _LOGVAR_FLOOR + F.softplus(_LOGVAR_START + _LOGVAR_GAIN * self.scale - _LOGVAR_FLOOR)

    def forward(self, z: Tensor) -> Tensor:
        """Latents `[n, d]` -> mean pictures `[n, 3, 64, 64]` in 0..1."""
        start = self.start(z).view(len(z), -1, 4, 4)  # [n, 8 * width, 4, 4]
        pictures: Tensor = torch.sigmoid(self.stages(start))
        return pictures

    def log_prob(self, target: Tensor, z: Tensor) -> Tensor:
        """`log p(target | z)` of each picture `[n, 3, 64, 64]`, nats `[n]`, summed over its 12,288 numbers."""
        return log_density(unit_pixels(target), self(z), self.logvar).flatten(1).sum(1)


def unit_pixels(pictures: Tensor) -> Tensor:
    """Pictures in 0..1, float; uint8 ones are divided by 255.

    Raises:
        ValueError: for another size than 64x64.
    """
    if pictures.shape[1:] != (3, SIDE_PX, SIDE_PX):
        raise ValueError(f"pictures are {list(pictures.shape)}; this model takes [n, 3, {SIDE_PX}, {SIDE_PX}]")
    return pictures if pictures.is_floating_point() else pictures.float() / 255
