"""`mmsearch eval`: what a model is worth on a data set with captions.

    data set -> posteriors of pictures and captions -> recall both ways, KL, active units -> bounds on the likelihood

In: a data set, a model's name or path. Out: an `EvalReport`, which the command line prints as a table or JSON. The
model is used the way everybody uses it, from files to vectors. Next: `bounds.py`, the part that needs the decoders.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from indexer.base.types import Modality, Posterior
from mmsearch.data.datasets import Example
from mmsearch.errors import CheckpointError
from mmsearch.evaluation.recall import Recall, hubness_of, retrieval
from mmsearch.evaluation.subject import Embedder, Report, Subject, in_batches
from mmsearch.inference.pictures import to_image
from mmsearch.inference.preprocess import square

if TYPE_CHECKING:  # needs torch
    from mmsearch.evaluation.bounds import PairEncoder

log = logging.getLogger(__name__)

_ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, section 5.2, https://arxiv.org/abs/1509.00519


@runtime_checkable
class Headed(Protocol):
    """A model whose heads stand on a backbone that could be searched with alone."""

    def bare(self) -> Embedder:
        """The backbone without the heads."""

    def with_heads(self, bare: Posterior, modality: Modality) -> Posterior:
        """The backbone's posteriors `[n, f]` -> the model's `[n, d]`."""


@dataclass(frozen=True)
class LatentUse:
    """How much of the latent space one modality uses.

    Attributes:
        kl: mean over items of `KL(q(z|x) || N(0, I))`, nats.
        kl_largest: the dimension that carries most, nats.
        kl_median: the dimension in the middle, nats.
        active_units: dimensions whose mean varies over the data by more than 0.01 (Burda et al. 2016).
        dimensions: d.
    """

    kl: float
    kl_largest: float
    kl_median: float
    active_units: int
    dimensions: int


@dataclass(frozen=True)
class EvalReport(Report):
    """What `mmsearch eval` found. Recalls are percent, KL and bounds nats.

    Means are ranked as a search ranks them: by cosine, less the hubness of items where the model has a bank of queries.

    Attributes:
        cosine: of a model with a bank, `text_to_image` and `image_to_text` by cosine alone; else empty.
        backbone: of heads on a backbone, `text_to_image` and `image_to_text` of the backbone as it is; else empty.
        bounds: for the posteriors `image`, `text` and `joint`: `elbo` and, where asked for, `importance_weighted`;
            nats a pair, of pixels or standardised features and words, whatever the model's decoders reconstruct.
        bounds_note: why `bounds` is empty, or what they are bounds of.
    """

    model: str
    fingerprint: str
    data: str
    split: str
    images: int
    texts: int
    text_to_image: Recall
    image_to_text: Recall
    mean_recall: float
    latent: Mapping[str, LatentUse]
    cosine: Mapping[str, Recall] = field(default_factory=dict)
    backbone: Mapping[str, Recall] = field(default_factory=dict)
    bounds: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    bounds_note: str = ""
    seconds: float = 0.0


def evaluate(subject: Subject, *, samples: int = 1) -> EvalReport:
    """Measure a model by its recall, its use of the latent space and, where it has decoders, its bounds.

    Args:
        subject: model and examples.
        samples: latents drawn for the bounds; from 2 on the importance-weighted bound is reported too.

    Raises:
        DecodeError: a picture that cannot be read.
    """
    model, owner = subject.model, subject.owner
    pairs, note = _pair_encoder(subject.folder)
    images, texts, bare = _embed(subject, pairs)
    found = cosine = retrieval(images.mu, texts.mu, owner)
    hubs = {"image_hubness": hubness_of(model, "text", images.mu), "text_hubness": hubness_of(model, "image", texts.mu)}
    if corrected := any(hubness is not None for hubness in hubs.values()):
        found = retrieval(images.mu, texts.mu, owner, **hubs)
    raw = None if bare is None else retrieval(bare[0].mu, bare[1].mu, owner)
    bounds = {} if pairs is None else pairs.bounds(samples=samples)
    return EvalReport(
        **subject.facts,
        images=len(subject.examples),
        texts=len(subject.captions),
        text_to_image=found.text_to_image,
        image_to_text=found.image_to_text,
        mean_recall=found.mean_recall,
        latent={"image": latent_use(images), "text": latent_use(texts)},
        cosine=cosine.ways if corrected else {},
        backbone={} if raw is None else raw.ways,
        bounds={name: asdict(bound) for name, bound in bounds.items()},
        bounds_note=note,
    )


def _embed(
    subject: Subject, pairs: PairEncoder | None
) -> tuple[Posterior, Posterior, tuple[Posterior, Posterior] | None]:
    """Posteriors of pictures and captions and, for heads on a backbone, the backbone's own; encoded once for both.

    Every picture is decoded once: `pairs` gets the squares that the model gets.
    """
    model = subject.model
    source = model.bare() if isinstance(model, Headed) else model

    def embed(chunk: Sequence[Example]) -> Posterior:
        if pairs is None:
            return source.embed_images([example.image for example in chunk])
        side_px = pairs.side_px
        with ThreadPoolExecutor() as pool:
            squares = list(pool.map(lambda example: square(to_image(example.image, side_px), side_px), chunk))
        pairs.add(squares, [example.captions[0] for example in chunk])
        return source.embed_images(squares)

    images = in_batches(embed, list(subject.examples), "pictures")
    texts = in_batches(source.embed_texts, subject.captions, "captions")
    if not isinstance(model, Headed):
        return images, texts, None
    own = (model.with_heads(images, "image"), model.with_heads(texts, "text"))
    return *own, None if source.fingerprint == model.fingerprint else (images, texts)


def _pair_encoder(folder: Path | None) -> tuple[PairEncoder | None, str]:
    """What gathers pairs for the bounds, and what they will be bounds of; or nothing and why."""
    if folder is None or not (folder / "model.json").is_file():
        return None, "not computed: this model has no decoders"
    try:
        from mmsearch.evaluation.bounds import PairEncoder
    except ImportError:
        return None, "not computed: torch is missing; pip install 'mmsearch[train]'"
    try:
        return PairEncoder.open(folder), "beta = 1, of each picture with its first caption, as its decoders see them"
    except CheckpointError as error:
        return None, f"not computed: {error}"


def latent_use(posterior: Posterior) -> LatentUse:
    """KL to the prior and active units of posteriors `[n, d]`."""
    mu, logvar = posterior.mu.astype(np.float64), posterior.logvar.astype(np.float64)
    kl = (0.5 * (mu**2 + np.exp(logvar) - 1 - logvar)).mean(axis=0)  # [d], Kingma & Welling 2014, appendix B
    return LatentUse(
        kl=float(kl.sum()),
        kl_largest=float(kl.max()),
        kl_median=float(np.median(kl)),
        active_units=int((mu.var(axis=0) > _ACTIVE_VARIANCE).sum()),
        dimensions=mu.shape[1],
    )
