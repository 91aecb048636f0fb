"""Bounds on the likelihood of pictures and texts together: the plain ELBO (beta = 1) and the importance-weighted one.

In: a VAE and the encodings of a set. Out: nats a pair, for the posterior given the image, the text, and both. What the
objective adds to the ELBO (contrast, agreement, beta) is left out here: these are lower bounds on log p(image, text)
of the features or pixels that the decoders reconstruct. Next: `evaluate.py` puts them beside the recall.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from indexer.base.types import UInt8Array
from mmsearch.errors import CheckpointError
from mmsearch.models.checkpoint import load_vae
from mmsearch.models.gaussian import kl_to_prior, log_density, reparameterise
from mmsearch.models.tokens import tokenise
from mmsearch.models.vae import Encoding, MultimodalVAE
from mmsearch.models.variants import Gaussian, Variant, mixture_log_density, posterior_components

_CHUNK_PAIRS = 64


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on log p(x) of a pair, nats, mean over pairs. `importance_weighted` is None with one sample."""

    elbo: float
    importance_weighted: float | None


class PairEncoder:
    """Encodings by a stored model of pairs that come a chunk at a time, and their bounds."""

    def __init__(self, vae: MultimodalVAE, side_px: int, max_tokens: int, tokenizer: Tokenizer) -> None:
        self.side_px = side_px
        self._vae, self._max_tokens, self._tokenizer = vae, max_tokens, tokenizer
        self._parts: list[dict[str, Encoding]] = []

    @classmethod
    def open(cls, folder: Path) -> PairEncoder:
        """The model in `folder`, whose encoders start at pixels and words (`pretrained` or `scratch`).

        Raises:
            CheckpointError: a folder that holds no such model.
        """
        vae, architecture = load_vae(folder)
        if architecture.kind == "backbone":
            raise CheckpointError(f"{folder} holds heads on features of {architecture.backbone}; these start at pixels")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return cls(vae, architecture.side_px, architecture.max_tokens, tokenizer)

    def add(self, squares: Sequence[UInt8Array], captions: Sequence[str]) -> None:
        """Pictures, each uint8 `[side_px, side_px, 3]`, and as many captions."""
        for start in range(0, len(squares), _CHUNK_PAIRS):
            chunk = slice(start, start + _CHUNK_PAIRS)
            pixels = torch.from_numpy(np.stack(squares[chunk])).permute(0, 3, 1, 2)  # uint8 [c, 3, side, side]
            ids = tokenise(self._tokenizer, list(captions[chunk]), self._max_tokens)  # [c, t]
            with torch.no_grad():
                self._parts.append(self._vae.encode({"image": pixels, "text": ids}))

    def bounds(self, *, samples: int = 1) -> dict[str, Bounds]:
        """Bounds over all pairs added, at least one; see `bounds`."""
        encodings = {modality: _joined([part[modality] for part in self._parts]) for modality in self._parts[0]}
        return bounds(self._vae, encodings, torch.arange(len(encodings["image"].mu)), samples=samples)


def bounds(
    vae: MultimodalVAE,
    encodings: Mapping[str, Encoding],
    photo: Tensor,
    *,
    samples: int = 1,
    seed: int = 0,
    variant: Variant = "full",
) -> dict[str, Bounds]:
    """Both bounds for every posterior: each modality's own and, with several, the joint one.

    The ELBO is `E_q[log p(x|z)] - KL(q || N(0, I))`, the divergence in closed form (Kingma & Welling 2014,
    https://arxiv.org/abs/1312.6114). The tighter one is `E[log 1/K sum_k p(x|z_k) p(z_k) / q(z_k)]` (Burda et al. 2016,
    equation 8, https://arxiv.org/abs/1509.00519). Where q is a mixture its divergence has no closed form and is
    averaged over the draws.

    Args:
        vae: for its decoders; every posterior reconstructs every modality given.
        encodings: `image` with n rows, any other with t rows.
        photo: the row of `image` that each of the t pairs shows, int64 `[t]`.
        samples: K, latents drawn for each pair.
        seed: of the draws.
        variant: whose joint posterior: the product of experts, or the mixture that `mmvae` and `mopoe` mean by it.

    Raises:
        ValueError: fewer than one sample.
    """
    if samples < 1:
        raise ValueError(f"{samples} samples; at least 1 is needed")
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for pairs in _chunks(encodings, photo):
            single = {modality: (e.mu, e.logvar) for modality, e in pairs.items()}
            posteriors = {modality: [posterior] for modality, posterior in single.items()}
            if len(pairs) > 1:
                posteriors["joint"] = posterior_components(variant, single)
            for name, components in posteriors.items():
                sums.setdefault(name, []).append(_pair_bounds(vae, pairs, components, samples, generator))  # [2, c]
    totals = {name: torch.cat(parts, dim=1).double().mean(1).tolist() for name, parts in sums.items()}
    return {name: Bounds(elbo, weighted if samples > 1 else None) for name, (elbo, weighted) in totals.items()}


def _joined(encodings: Sequence[Encoding]) -> Encoding:
    """Chunks one below the other; token targets of different lengths are padded with 0."""
    mu, logvar, targets = zip(*encodings, strict=True)
    if targets[0].is_floating_point():
        return Encoding(torch.cat(mu), torch.cat(logvar), torch.cat(targets))
    tokens = torch.nn.utils.rnn.pad_sequence([row for target in targets for row in target], batch_first=True)
    return Encoding(torch.cat(mu), torch.cat(logvar), tokens)


def _chunks(encodings: Mapping[str, Encoding], photo: Tensor) -> Iterator[dict[str, Encoding]]:
    for start in range(0, len(photo), _CHUNK_PAIRS):
        texts = slice(start, start + _CHUNK_PAIRS)
        yield {
            modality: Encoding(*(part[photo[texts]] if modality == "image" else part[texts] for part in encoding))
            for modality, encoding in encodings.items()
        }


def _pair_bounds(
    vae: MultimodalVAE,
    pairs: Mapping[str, Encoding],
    components: Sequence[Gaussian],
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """ELBO and importance-weighted bound of each pair `[2, c]`, for an equal mixture of posteriors."""
    zero = torch.zeros_like(components[0][0])
    likelihoods, log_weights = [], []
    for _ in range(samples):
        z = reparameterise(*_one_of(components, generator), generator)  # [c, d]
        likelihood = torch.stack([vae.decoder(m).log_prob(e.target, z) for m, e in pairs.items()]).sum(0)  # [c]
        likelihoods.append(likelihood)
        log_weights.append(likelihood + log_density(z, zero, zero).sum(1) - mixture_log_density(z, components))
    elbo = torch.stack(log_weights).mean(0)  # [c]
    if len(components) == 1:  # the divergence in closed form: less noise
        elbo = torch.stack(likelihoods).mean(0) - kl_to_prior(*components[0]).sum(1)
    weighted = torch.stack(log_weights).logsumexp(0) - math.log(samples)  # [c]
    return torch.stack([elbo, weighted])


def _one_of(components: Sequence[Gaussian], generator: torch.Generator) -> Gaussian:
    """For each pair one component of the mixture, at random."""
    if len(components) == 1:
        return components[0]
    mus, logvars = (torch.stack(part, 1) for part in zip(*components, strict=True))  # [c, C, d]
    rows = torch.arange(len(mus))
    chosen = torch.randint(len(components), (len(mus),), generator=generator)  # [c]
    return mus[rows, chosen], logvars[rows, chosen]
