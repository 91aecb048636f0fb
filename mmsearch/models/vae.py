"""The multimodal VAE: one encoder and one decoder a modality around one latent space.

In: inputs by modality. Out: posteriors by modality and, by the product of experts, of any subset. The encoders are
either a trunk with pooling and a head (`ImageEncoder`, `TextEncoder` here) or the from-scratch ones of `conv64.py` and
`gru.py`: each returns an `Encoding`. Next: `checkpoint.py` stores it; `training/objective.py` trains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from mmsearch.models.efficientnet_lite import FEATURES, EfficientNetLite
from mmsearch.models.gaussian import product_of_experts
from mmsearch.models.heads import AttentionPool, GaussianHead
from mmsearch.models.minilm import PAD_ID, BertSize, MiniLM


class Encoding(NamedTuple):
    """One modality's posterior and what its decoder is asked to reconstruct.

    Attributes:
        mu: means `[n, d]`.
        logvar: log variances `[n, d]`, below zero.
        target: the decoder's target, `[n, ...]`, without gradient.
    """

    mu: Tensor
    logvar: Tensor
    target: Tensor


class Decoder(Protocol):
    """What the objective needs of a decoder."""

    def log_prob(self, target: Tensor, z: Tensor) -> Tensor:
        """`log p(target | z)` of each item, nats `[n]`."""


class HeadedEncoder(nn.Module):
    """An encoder that ends in a head on features."""

    head: GaussianHead

    def from_features(self, features: Tensor) -> Encoding:
        """Features `[n, f]` (pooled, where a trunk gives them) -> posterior."""
        mu, logvar = self.head(features)
        return Encoding(mu, logvar, self.head.standardise(features).detach())


class ImageEncoder(HeadedEncoder):
    """Trunk, pooling and head. `forward` starts at pixels, `from_activations` at the trunk's cut."""

    def __init__(self, trunk: EfficientNetLite, hidden: int, latent: int, dropout: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.pool = AttentionPool(FEATURES)
        self.head = GaussianHead(FEATURES, hidden, latent, dropout)

    def forward(self, pixels: Tensor) -> Encoding:
        """RGB 0..255 `[n, 3, side, side]` -> posterior."""
        return self.from_activations(self.trunk.early(pixels))

    def from_activations(self, activations: Tensor) -> Encoding:
        """The trunk's activations at its cut `[n, c, h, w]` -> posterior."""
        return self.from_features(self.features(activations))

    def features(self, activations: Tensor) -> Tensor:
        """Activations at the cut `[n, c, h, w]` -> pooled features `[n, 1280]`."""
        feature_map = self.trunk.late(activations)
        pooled: Tensor = self.pool(feature_map.flatten(2).transpose(1, 2))
        return pooled.float()


class TextEncoder(HeadedEncoder):
    """Transformer, pooling over the tokens that count, and head."""

    def __init__(self, size: BertSize, hidden: int, latent: int, dropout: float) -> None:
        super().__init__()
        self.transformer = MiniLM(size)
        self.pool = AttentionPool(size.width)
        self.head = GaussianHead(size.width, hidden, latent, dropout)

    def forward(self, ids: Tensor) -> Encoding:
        """Token ids int64 `[n, t]`, padded with 0 -> posterior."""
        return self.from_features(self.features(ids))

    def features(self, ids: Tensor) -> Tensor:
        """Token ids `[n, t]` -> pooled features `[n, 384]`."""
        pooled: Tensor = self.pool(self.transformer(ids), ids != PAD_ID)
        return pooled.float()


class FeatureEncoder(HeadedEncoder):
    """A head alone, on features computed elsewhere: by a frozen trunk or by another model altogether."""

    def __init__(self, features: int, hidden: int, latent: int, dropout: float) -> None:
        super().__init__()
        self.head = GaussianHead(features, hidden, latent, dropout)

    def forward(self, features: Tensor) -> Encoding:
        """Features `[n, f]` -> posterior."""
        return self.from_features(features)


class MultimodalVAE(nn.Module):
    """Encoders and decoders by modality.

    Args:
        encoders: modality -> module returning an `Encoding`.
        decoders: modality -> module with `log_prob(target, z)`.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], decoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        self.decoders = nn.ModuleDict(dict(decoders))

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Encoding]:
        """Posteriors of the modalities present; a missing one is simply not there."""
        return {m: self.encoders[m](x) for m, x in inputs.items()}

    def decoder(self, modality: str) -> Decoder:
        """The decoder of one modality."""
        return cast(Decoder, self.decoders[modality])


def channels_last(vae: MultimodalVAE) -> MultimodalVAE:
    """The same model with its convolutions laid out the way CPUs and tensor cores are fastest with."""
    for parameter in vae.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return vae


def fuse(encodings: Sequence[Encoding]) -> tuple[Tensor, Tensor]:
    """The joint posterior of several modalities by the product of experts: mean and log variance, each `[n, d]`."""
    return product_of_experts([e.mu for e in encodings], [e.logvar for e in encodings])
