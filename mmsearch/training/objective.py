"""The objective: ELBOs over image, text and joint, KL consistency of the joint with each, InfoNCE of the means.

    sum_S  E[log p(x|z_S)] - beta KL(q_S || N(0, I))          S in {image, text, joint}, each decoding every modality
    - gamma 1/2 sum_m KL(q_joint || q_m)                      KL consistency, as in MVTCAE and JMVAE
    + eta * symmetric InfoNCE on normalised means             several captions of a photo count as positives

MVTCAE: Hwang et al. 2021, https://proceedings.neurips.cc/paper/2021/hash/65a99bb7a3115fdede20da98b08a370f-Abstract.html.
JMVAE: Suzuki et al. 2017, https://arxiv.org/abs/1611.01891.

The total is an ELBO plus auxiliaries, not a bound; `evaluation/bounds.py` has the bounds. That is the variant `full`;
the others are in `models/variants.py`, but for `contrast`, the last line alone. In: encodings of a batch. Out: a loss
and its terms. Next: `loop.py` takes the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.errors import TrainingError
from mmsearch.models import variants
from mmsearch.models.gaussian import kl_between, kl_to_prior, reparameterise
from mmsearch.models.vae import Encoding, MultimodalVAE, fuse
from mmsearch.training.recipe import Objective


@dataclass(frozen=True)
class Terms:
    """The objective of one batch, nats an item; `total` is what is minimised and carries the gradient."""

    total: Tensor
    elbo: Tensor
    kl: Tensor
    agreement: Tensor
    contrast: Tensor


class Contrast(nn.Module):
    """Symmetric InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748) with a learnable temperature.

    As CLIP has it (Radford et al. 2021, https://arxiv.org/abs/2103.00020).
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1 / temperature).log())

    def forward(self, image: Tensor, text: Tensor, photo: Tensor, wording: Tensor) -> Tensor:
        """The mean of both directions, nats.

        Args:
            image: means of the photos `[n, d]`.
            text: means of the texts `[t, d]`.
            photo: the row of `image` each text belongs to `[t]`.
            wording: equal for equal texts `[t]`; they are never each other's negatives.
        """
        v, t = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        scale = self.log_scale.exp().clamp(max=100.0)
        logits = scale * t @ v.T  # [t, n]
        own = photo[:, None] == torch.arange(len(v), device=v.device)  # [t, n]
        same = (wording[:, None] == wording[None]).float()  # [t, t]
        alike = (same @ own.float()) > 0  # [t, n]: the photo carries a text with these very words
        logits = logits.masked_fill(alike & ~own, -torch.inf)
        text_to_image = F.cross_entropy(logits, photo)
        log_p = logits.T.log_softmax(1).masked_fill(~own.T, 0.0)
        image_to_text = -(log_p.sum(1) / own.sum(0).clamp_min(1)).mean()
        return 0.5 * (text_to_image + image_to_text)


def objective(
    vae: MultimodalVAE,
    contrast: Contrast,
    weights: Objective,
    encodings: Mapping[str, Encoding],
    photo: Tensor,
    wording: Tensor,
) -> Terms:
    """The objective of a batch of `n` photos and `t >= n` texts.

    Args:
        vae: for its decoders.
        contrast: holds the temperature.
        weights: of the terms.
        encodings: `image` with n rows, `text` with t rows.
        photo: the photo of each text `[t]`.
        wording: equal for equal texts `[t]`.

    Raises:
        TrainingError: a variant that has no gradient.
    """
    if weights.variant not in ("full", "contrast"):
        return _variant(vae, weights, encodings, photo)
    if weights.variant == "contrast":
        weights = replace(weights, elbo=0.0)
    image, text = encodings["image"], encodings["text"]
    zero = image.mu.new_zeros(())
    elbo, kl, agreement, info_nce = zero, zero, zero, zero
    if weights.elbo:
        pairs = _pairs(encodings, photo)
        posteriors = {m: (e.mu, e.logvar) for m, e in pairs.items()}
        posteriors["joint"] = fuse(list(pairs.values()))
        for subset in weights.subsets:
            z = reparameterise(*posteriors[subset])
            likelihood = sum((vae.decoder(m).log_prob(e.target, z).mean() for m, e in pairs.items()), zero)
            divergence = kl_to_prior(*posteriors[subset]).sum(-1).mean()
            elbo, kl = elbo + likelihood - weights.beta * divergence, kl + divergence
        if weights.gamma:
            joint = posteriors["joint"]
            for m in pairs:
                agreement = agreement + 0.5 * kl_between(*joint, *posteriors[m]).sum(-1).mean()
    if weights.eta:
        info_nce = contrast(image.mu, text.mu, photo, wording)
    total = -weights.elbo * (elbo - weights.gamma * agreement) + weights.eta * info_nce
    return Terms(total, elbo.detach(), kl.detach(), agreement.detach(), info_nce.detach())


_BY_NAME: Mapping[str, Callable[[variants.Posteriors, variants.Likelihoods, float], variants.Value]] = {
    "ae": lambda posteriors, likelihoods, _: variants.autoencoder(posteriors, likelihoods),
    "elbo": variants.joint_elbo,
    "mvae": variants.mvae,
    "mmvae": variants.mmvae,
    "mopoe": variants.mopoe,
    "mvtcae": variants.mvtcae,
}


def _variant(vae: MultimodalVAE, weights: Objective, encodings: Mapping[str, Encoding], photo: Tensor) -> Terms:
    """A variant by name, on the pairs of the batch; of the weights only `beta` has a part in it."""
    if weights.variant not in _BY_NAME:
        raise TrainingError(f"the variant {weights.variant!r} has no gradient; it is fitted in closed form")
    pairs = _pairs(encodings, photo)
    posteriors = {m: (e.mu, e.logvar) for m, e in pairs.items()}
    likelihoods = {m: partial(vae.decoder(m).log_prob, e.target) for m, e in pairs.items()}
    found = _BY_NAME[weights.variant](posteriors, likelihoods, weights.beta)
    value, zero = found.value.mean(), found.value.new_zeros(())
    return Terms(-value, value.detach(), found.kl.mean().detach(), zero, zero)


def _pairs(encodings: Mapping[str, Encoding], photo: Tensor) -> dict[str, Encoding]:
    """Each text with its photo, `[t, ...]` each."""
    return {"image": Encoding(*(part[photo] for part in encodings["image"])), "text": encodings["text"]}
