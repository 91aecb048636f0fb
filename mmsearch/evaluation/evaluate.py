"""`mmsearch eval`: what a model is worth on a data set with captions.

    data set -> posteriors of pictures and captions -> recall both ways, KL, active units -> bounds on the likelihood

In: a data set, a model's name or path. Out: an `EvalReport`, which the command line prints as a table or JSON. The
model is used the way everybody uses it, from files to vectors. Next: `bounds.py`, the part that needs the decoders.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from indexer.base.types import Modality, Posterior
from mmsearch.data.datasets import Example, read_dataset
from mmsearch.errors import CheckpointError
from mmsearch.evaluation.recall import Recall, hubness_of, retrieval
from mmsearch.inference.pictures import Picture, to_image
from mmsearch.inference.preprocess import square

if TYPE_CHECKING:  # needs torch
    from mmsearch.evaluation.bounds import PairEncoder

log = logging.getLogger(__name__)

_BATCH = 256
_ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, section 5.2


class Embedder(Protocol):
    """What is measured: a model as `mmsearch.load_model` returns it."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def fingerprint(self) -> str:
        """sha256 of weights and configuration."""

    def embed_images(self, images: Sequence[Picture]) -> Posterior:
        """Image files, PIL images or uint8 arrays -> posteriors `[n, d]`."""

    def embed_texts(self, texts: list[str]) -> Posterior:
        """Strings -> posteriors `[n, d]`."""


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
class EvalReport:
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

    def to_dict(self) -> dict[str, Any]:
        """The report as `mmsearch eval --json` prints it, numbers rounded to what the data can tell."""
        printed: dict[str, Any] = rounded(asdict(self))
        return printed


def evaluate(
    data: Path, *, split: str = "val", model: str = "default", device: str = "auto", samples: int = 1
) -> EvalReport:
    """Measure a model on one split of a data set.

    Args:
        data: a folder or file that `datasets.read_dataset` knows.
        split: which part of it.
        model: what `load_model` takes.
        device: `auto`, `cpu` or `cuda`.
        samples: latents drawn for the bounds; from 2 on the importance-weighted bound is reported too.

    Raises:
        DataError: a data set that cannot be read.
        DecodeError: a picture in it that cannot.
        ModelError: a model that cannot be loaded.
    """
    from mmsearch.inference.load_model import PRETRAINED, load_model

    examples = read_dataset(Path(data), split)
    folder = PRETRAINED / "default" if model == "default" else Path(model).expanduser()
    return evaluate_model(
        load_model(model, device), examples, data=str(data), split=split, folder=folder, samples=samples
    )


def evaluate_model(
    model: Embedder,
    examples: Sequence[Example],
    *,
    data: str = "",
    split: str = "",
    folder: Path | None = None,
    samples: int = 1,
) -> EvalReport:
    """The same for a model in hand and examples already read; `folder` is where its decoders are, if anywhere."""
    started = time.monotonic()
    captions = [caption for example in examples for caption in example.captions]
    image_of_text = np.repeat(np.arange(len(examples)), [len(example.captions) for example in examples])
    pairs, note = _pair_encoder(folder)
    images, texts, bare = _embed(model, examples, captions, pairs)
    found = cosine = retrieval(images.mu, texts.mu, image_of_text)
    hubs = {"image_hubness": hubness_of(model, "text", images.mu), "text_hubness": hubness_of(model, "image", texts.mu)}
    if corrected := any(hubness is not None for hubness in hubs.values()):
        found = retrieval(images.mu, texts.mu, image_of_text, **hubs)
    raw = None if bare is None else retrieval(bare[0].mu, bare[1].mu, image_of_text)
    bounds = {} if pairs is None else pairs.bounds(samples=samples)
    return EvalReport(
        model=model.name,
        fingerprint=model.fingerprint,
        data=data,
        split=split,
        images=len(examples),
        texts=len(captions),
        text_to_image=found.text_to_image,
        image_to_text=found.image_to_text,
        mean_recall=found.mean_recall,
        latent={"image": latent_use(images), "text": latent_use(texts)},
        cosine=cosine.ways if corrected else {},
        backbone={} if raw is None else raw.ways,
        bounds={name: bound.to_dict() for name, bound in bounds.items()},
        bounds_note=note,
        seconds=time.monotonic() - started,
    )


def _embed(
    model: Embedder, examples: Sequence[Example], captions: Sequence[str], pairs: PairEncoder | None
) -> tuple[Posterior, Posterior, tuple[Posterior, Posterior] | None]:
    """Posteriors of pictures and captions and, for heads on a backbone, the backbone's own; encoded once for both.

    Every picture is decoded once: `pairs` gets the squares that the model gets.
    """
    source = model.bare() if isinstance(model, Headed) else model

    def embed(chunk: Sequence[Example]) -> Posterior:
        if pairs is None:
            return source.embed_images([example.image for example in chunk])
        side_px = pairs.side_px
        with ThreadPoolExecutor() as pool:
            squares = list(pool.map(lambda example: square(to_image(example.image, side_px), side_px), chunk))
        pairs.add(squares, [example.captions[0] for example in chunk])
        return source.embed_images(squares)

    images = in_batches(embed, examples, "pictures")
    texts = in_batches(source.embed_texts, captions, "captions")
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


def in_batches(embed: Any, items: Sequence[Any], what: str) -> Posterior:
    """Posteriors `[n, d]` of any number of items, a few hundred at a time; `what` they are is for the log."""
    parts = []
    for start in range(0, len(items), _BATCH):
        parts.append(embed(items[start : start + _BATCH]))
        log.info("%s: %d of %d", what, min(start + _BATCH, len(items)), len(items))
    return Posterior(np.concatenate([p.mu for p in parts]), np.concatenate([p.logvar for p in parts]))


def rounded(value: Any) -> Any:
    """Numbers of a report, nested in dictionaries, rounded to what the data can tell."""
    if isinstance(value, float) and abs(value) >= 1000:
        return round(value)
    if isinstance(value, float):
        return round(value, 2 if abs(value) >= 1 else 4)
    return {key: rounded(inner) for key, inner in value.items()} if isinstance(value, dict) else value
