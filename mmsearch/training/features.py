"""Features of the untouched trunks, or of a frozen backbone: computed once and found again by every run.

In: a corpus and a pretrained model or a `Backbone`. Out: whole photos `[photos, f]` and captions `[captions, g]`,
float32. A file of the trunks' features names the photos, captions and weights that it is of, so that a run on a part of
them, in any order, reads its rows from there. Next: `stages.py`, `FeatureStage`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.data.augmentation_cache import AugmentationCache
from mmsearch.errors import DataError, DecodeError
from mmsearch.inference.backbone import BATCH, Backbone
from mmsearch.inference.pictures import to_image
from mmsearch.models.tokens import tokenise
from mmsearch.models.vae import ImageEncoder, TextEncoder
from mmsearch.training.corpus import Corpus

log = logging.getLogger(__name__)

Keys = NDArray[np.uint64]
Float32 = NDArray[np.float32]
_NAME = "features.npz"


@dataclass(frozen=True, eq=False)
class Wanted:
    """What features are of.

    Attributes:
        weights: digest of both trunks.
        photos: a key each `[n]`.
        captions: a key each `[m]`.
    """

    weights: str
    photos: Keys
    captions: Keys


def trunk_features(
    views: AugmentationCache,
    image: ImageEncoder,
    text: TextEncoder,
    corpus: Corpus,
    tokenizer: Tokenizer,
    max_tokens: int,
) -> tuple[Tensor, Tensor]:
    """Whole photos `[photos, 1280]` and all captions `[captions, 384]` in the corpus' order; cached."""
    captions = [caption for captions in corpus.captions for caption in captions]
    wanted = Wanted(
        weights=_weights(image, text, max_tokens),
        photos=_keys(f"{p.parent.parent.name}/{p.name} {p.stat().st_size}" for p in corpus.photos),
        captions=_keys(captions),
    )
    found = find(views.folder.parent, wanted)
    if found is None:
        log.info("features of the untouched trunks: %d photos, %d captions", len(corpus.photos), len(captions))
        found = _images(views, image), _texts(text, captions, tokenizer, max_tokens)
        save(views.folder / _NAME, wanted, *found)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def backbone_features(backbone: Backbone, corpus: Corpus, cache: Path) -> tuple[Tensor, Tensor]:
    """Unit-normalised features: photos `[photos, f]` and all captions in the corpus' order `[captions, f]`.

    Raises:
        DataError: a photo that cannot be decoded.
    """
    file = cache / f"backbone-{_backbone_key(backbone, corpus)}.npz"
    if not file.exists():
        captions = [caption for captions in corpus.captions for caption in captions]
        log.info("features of %s: %d photos, %d captions", backbone.name, len(corpus.photos), len(captions))
        _save_whole(file, images=_backbone_images(backbone, corpus), texts=backbone.texts(captions))
    with np.load(file) as stored:
        return torch.from_numpy(stored["images"]), torch.from_numpy(stored["texts"])


def training_part(corpus: Corpus, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the photos trained on: their features, those of their captions, and the photo of each caption `[t]`."""
    counts = torch.tensor([len(captions) for captions in corpus.captions[: corpus.train]])
    photo = torch.arange(corpus.train).repeat_interleave(counts)
    return images[: corpus.train], texts[: len(photo)], photo


def find(cache: Path, wanted: Wanted) -> tuple[Float32, Float32] | None:
    """The features wanted, where one file of the cache's folders has them all."""
    for file in sorted(cache.glob(f"*/{_NAME}")):
        try:
            with np.load(file) as stored:
                if "weights" not in stored or str(stored["weights"]) != wanted.weights:
                    continue
                photos, captions = _rows(stored["photos"], wanted.photos), _rows(stored["captions"], wanted.captions)
                if photos is not None and captions is not None:
                    return stored["images"][photos], stored["texts"][captions]
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be read and is passed over: %s", file, error)
    return None


def save(file: Path, wanted: Wanted, images: Float32, texts: Float32) -> None:
    """Write features, in place at once."""
    weights = np.array(wanted.weights)
    _save_whole(file, images=images, texts=texts, photos=wanted.photos, captions=wanted.captions, weights=weights)


def _save_whole(file: Path, **arrays: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez(temporary, **arrays)
    os.replace(temporary, file)


def _rows(stored: Keys, wanted: Keys) -> NDArray[np.int64] | None:
    """Where each wanted key stands among those stored; None where one is missing."""
    if not len(stored):
        return None
    order = np.argsort(stored, kind="stable")
    places = np.minimum(np.searchsorted(stored, wanted, sorter=order), len(stored) - 1)
    rows: NDArray[np.int64] = order[places]
    return rows if (stored[rows] == wanted).all() else None


def _keys(names: Iterable[str]) -> Keys:
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    return np.frombuffer(b"".join(digests), np.uint64)


def _weights(image: ImageEncoder, text: TextEncoder, max_tokens: int) -> str:
    digest = hashlib.sha256(f"{image.trunk.side_px} {max_tokens}".encode())
    for module in (image.trunk, text.transformer):
        for parameter in module.parameters():
            digest.update(np.ascontiguousarray(parameter.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def _images(views: AugmentationCache, image: ImageEncoder) -> Float32:
    device, whole, parts = image.head.mean.device, views.view(0), []
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for i in range(0, len(whole), 128):
            activations = torch.from_numpy(np.asarray(whole[i : i + 128])).permute(0, 3, 1, 2).float()
            parts.append(image.features(activations.to(device)).cpu().numpy())
    return np.concatenate(parts)


def _texts(text: TextEncoder, captions: list[str], tokenizer: Tokenizer, max_tokens: int) -> Float32:
    features = np.zeros((len(captions), text.head.mean.numel()), np.float32)
    by_length = np.argsort([len(c) for c in captions], kind="stable")
    device = text.head.mean.device
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for i in range(0, len(captions), 256):
            part = by_length[i : i + 256]
            ids = tokenise(tokenizer, [captions[j] for j in part], max_tokens)
            features[part] = text.features(ids.to(device)).cpu().numpy()
    return features


def _backbone_images(backbone: Backbone, corpus: Corpus) -> Float32:
    parts = [np.zeros((0, backbone.features), np.float32)]
    for start in range(0, len(corpus.photos), BATCH):
        photos = corpus.photos[start : start + BATCH]
        try:
            squares = [backbone.prepare_image(to_image(photo, backbone.side_px)) for photo in photos]
        except DecodeError as error:
            raise DataError(f"{error}; take it out of the data set") from error
        parts.append(backbone.images(np.stack(squares)))
    return np.concatenate(parts)


def _backbone_key(backbone: Backbone, corpus: Corpus) -> str:
    """Another model, photo or caption is another cache."""
    digest = hashlib.sha256(backbone.fingerprint.encode())
    for photo, captions in zip(corpus.photos, corpus.captions, strict=True):
        found = photo.stat()
        digest.update(f"{photo.absolute()}\0{found.st_size}\0{found.st_mtime_ns}\0{captions!r}\n".encode())
    return digest.hexdigest()[:16]
