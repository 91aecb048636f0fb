"""The objective: ELBOs over image, text and joint, agreement of the joint with each, and contrast of the means.

    sum_S  E[log p(x|z_S)] - beta KL(q_S || N(0, I))          S in {image, text, joint}, each decoding every modality
    - gamma 1/2 sum_m KL(q_joint || q_m)                      MVTCAE (Hwang et al. 2021), JMVAE (Suzuki et al. 2017)
    + eta * symmetric InfoNCE on normalised means             several captions of a photo count as positives

The total is an ELBO plus auxiliaries, not a bound; `plain_elbo` beside it is one. In: encodings of a batch.
Out: a loss and its terms. Next: `loop.py` takes the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


@dataclass
class Memory:
    """Past embeddings as further negatives (cross-batch memory, Wang et al. 2020). Newest last, `[r, d]`."""

    size: int
    images: Tensor | None = None  # [r, d]
    image_rows: Tensor | None = None  # [r] which photo
    texts: Tensor | None = None  # [s, d]
    text_rows: Tensor | None = None  # [s] of which photo
    wordings: Tensor | None = None  # [s]

    def push(self, images: Tensor, image_rows: Tensor, texts: Tensor, text_rows: Tensor, wordings: Tensor) -> None:
        """Remember normalised means and what they show; the oldest leave."""

        def joined(old: Tensor | None, new: Tensor) -> Tensor:
            new = new.detach()
            return (new if old is None else torch.cat([old, new]))[-self.size :]

        self.images, self.image_rows = joined(self.images, images), joined(self.image_rows, image_rows)
        self.texts, self.text_rows = joined(self.texts, texts), joined(self.text_rows, text_rows)
        self.wordings = joined(self.wordings, wordings)

    def logits(self, v: Tensor, t: Tensor, scale: Tensor, own: Tensor, wording: Tensor) -> tuple[Tensor, Tensor]:
        """Further columns for both directions, `[t, r]` and `[n, s]`; the same words are never negatives."""
        assert self.images is not None
        assert self.image_rows is not None
        assert self.texts is not None
        assert self.text_rows is not None
        assert self.wordings is not None
        said = (wording[:, None] == self.wordings[None]).float()  # [t, s]
        shows = said @ (self.text_rows[:, None] == self.image_rows[None]).float() > 0  # [t, r]
        to_image = (scale * t @ self.images.T).masked_fill(shows, -torch.inf)
        to_text = (scale * v @ self.texts.T).masked_fill(own.float().T @ said > 0, -torch.inf)
        return to_image, to_text


class Contrast(nn.Module):
    """Symmetric InfoNCE (van den Oord et al. 2018) with a learnable temperature (Radford et al. 2021)."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1 / temperature).log())

    def forward(
        self, image: Tensor, text: Tensor, photo: Tensor, wording: Tensor, memory: Memory | None = None
    ) -> Tensor:
        """The mean of both directions, nats.

        Args:
            image: means of the photos `[n, d]`.
            text: means of the texts `[t, d]`.
            photo: the row of `image` each text belongs to `[t]`.
            wording: equal for equal texts `[t]`; they are never each other's negatives.
            memory: further negatives; pushed to by the caller.
        """
        v, t = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        scale = self.log_scale.exp().clamp(max=100.0)
        logits = scale * t @ v.T  # [t, n]
        own = photo[:, None] == torch.arange(len(v), device=v.device)  # [t, n]
        same = (wording[:, None] == wording[None]).float()  # [t, t]
        alike = (same @ own.float()) > 0  # [t, n]: the photo carries a text with these very words
        logits = logits.masked_fill(alike & ~own, -torch.inf)
        to_image, to_text = logits, logits.T
        if memory is not None and memory.images is not None:
            past_images, past_texts = memory.logits(v, t, scale, own, wording)
            to_image, to_text = torch.cat([to_image, past_images], 1), torch.cat([to_text, past_texts], 1)
        text_to_image = F.cross_entropy(to_image, photo)
        log_p = to_text.log_softmax(1)[:, : len(t)].masked_fill(~own.T, 0.0)
        image_to_text = -(log_p.sum(1) / own.sum(0).clamp_min(1)).mean()
        return 0.5 * (text_to_image + image_to_text)


def plain_elbo(vae: MultimodalVAE, encodings: Mapping[str, Encoding], posterior: tuple[Tensor, Tensor]) -> Tensor:
    """`E_q[log p(x|z)] - KL(q || N(0, I))` with one sample, beta = 1, nats `[n]`, over all modalities present."""
    z = reparameterise(*posterior)  # [n, d]
    likelihood = sum((vae.decoder(m).log_prob(e.target, z) for m, e in encodings.items()), z.new_zeros(len(z)))
    return likelihood - kl_to_prior(*posterior).sum(-1)


def objective(
    vae: MultimodalVAE,
    contrast: Contrast,
    weights: Objective,
    encodings: Mapping[str, Encoding],
    photo: Tensor,
    wording: Tensor,
    memory: Memory | None = None,
) -> Terms:
    """The objective of a batch of `n` photos and `t >= n` texts.

    Args:
        vae: for its decoders.
        contrast: holds the temperature.
        weights: of the terms.
        encodings: `image` with n rows, `text` with t rows.
        photo: the photo of each text `[t]`.
        wording: equal for equal texts `[t]`.
        memory: further negatives, or None.
    """
    image, text = encodings["image"], encodings["text"]
    zero = image.mu.new_zeros(())
    elbo, kl, agreement, info_nce = zero, zero, zero, zero
    if weights.elbo:
        pairs = {"image": Encoding(*(part[photo] for part in image)), "text": text}  # [t, ...] each
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
        info_nce = contrast(image.mu, text.mu, photo, wording, memory)
    total = -weights.elbo * (elbo - weights.gamma * agreement) + weights.eta * info_nce
    return Terms(total, elbo.detach(), kl.detach(), agreement.detach(), info_nce.detach())
