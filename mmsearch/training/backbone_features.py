"""Features of every photo and caption of a run, by a frozen backbone; computed once, kept on disk.

In: a corpus and a `Backbone`. Out: matrices that the heads are trained on. Next: `stages.py`, `FeatureStage`.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indexer.base.types import Float32Array
from mmsearch.errors import DataError, DecodeError
from mmsearch.inference.backbone import BATCH, Backbone
from mmsearch.inference.pictures import to_image
from mmsearch.training.corpus import Corpus

log = logging.getLogger(__name__)


def backbone_features(backbone: Backbone, corpus: Corpus, cache: Path) -> tuple[Tensor, Tensor]:
    """Unit-normalised features: photos `[photos, f]` and all captions in the corpus' order `[captions, f]`.

    Raises:
        DataError: a photo that cannot be decoded.
    """
    file = cache / f"backbone-{_key(backbone, corpus)}.npz"
    if not file.exists():
        captions = [caption for captions in corpus.captions for caption in captions]
        log.info("features of %s: %d photos, %d captions", backbone.name, len(corpus.photos), len(captions))
        cache.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez(temporary, images=_images(backbone, corpus), texts=backbone.texts(captions))
        os.replace(temporary, file)
    with np.load(file) as stored:
        return torch.from_numpy(stored["images"]), torch.from_numpy(stored["texts"])


def _images(backbone: Backbone, corpus: Corpus) -> Float32Array:
    parts = [np.zeros((0, backbone.features), np.float32)]
    for start in range(0, len(corpus.photos), BATCH):
        photos = corpus.photos[start : start + BATCH]
        try:
            squares = [backbone.prepare_image(to_image(photo, backbone.side_px)) for photo in photos]
        except DecodeError as error:
            raise DataError(f"{error}; take it out of the data set") from error
        parts.append(backbone.images(np.stack(squares)))
    return np.concatenate(parts)


def _key(backbone: Backbone, corpus: Corpus) -> str:
    """Another model, photo or caption is another cache."""
    digest = hashlib.sha256(backbone.fingerprint.encode())
    for photo, captions in zip(corpus.photos, corpus.captions, strict=True):
        found = photo.stat()
        digest.update(f"{photo.absolute()}\0{found.st_size}\0{found.st_mtime_ns}\0{captions!r}\n".encode())
    return digest.hexdigest()[:16]
