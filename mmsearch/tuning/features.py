"""Features of a person's photos and captions, by the trunks of the model to be tuned, which stay as they are.

In: pairs, a model. Out: `Features`, without the photos that cannot be read any more. Next: `fit.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from indexer.base.types import Float32Array, UInt8Array
from mmsearch.errors import CheckpointError, DataError, DecodeError
from mmsearch.inference.load_model import find_tried
from mmsearch.inference.pictures import to_image
from mmsearch.inference.preprocess import square
from mmsearch.models.checkpoint import Architecture
from mmsearch.models.tokens import tokenise
from mmsearch.models.vae import ImageEncoder, MultimodalVAE, TextEncoder
from mmsearch.tuning.fit import Features
from mmsearch.tuning.pairs import Pair

log = logging.getLogger(__name__)
_BATCH = 32


class Trunks(Protocol):
    """What lies before the heads: those of the model itself, or a `Backbone`."""

    @property
    def side_px(self) -> int:
        """Side of the square that they look at, pixels."""

    def prepare_image(self, image: Image.Image) -> UInt8Array:
        """One upright picture -> uint8 `[side, side, 3]`."""

    def images(self, batch: UInt8Array) -> Float32Array:
        """uint8 `[n, side, side, 3]` -> features `[n, f]`."""

    def texts(self, texts: Sequence[str]) -> Float32Array:
        """Strings -> features `[n, g]`."""


def read_features(
    source: Path, vae: MultimodalVAE, architecture: Architecture, pairs: Sequence[Pair], device: str
) -> Features:
    """Features of every pair whose photo can be read; the others are named in a warning and left out.

    Raises:
        DataError: none of them can be read.
        ModelError: the trunks cannot be loaded.
    """
    trunks = _trunks(source, vae, architecture, device)
    kept: list[int] = []
    parts: list[Float32Array] = []
    for rows, squares in _squares(trunks, pairs):
        parts.append(trunks.images(squares))
        kept += rows
        log.info("photos: %d of %d", len(kept), len(pairs))
    if not kept:
        raise DataError(f"none of the {len(pairs)} photos with captions can be read; run 'mmsearch index' again")
    readable = tuple(pairs[row] for row in kept)
    captions = [caption for pair in readable for caption in pair.captions]
    order = np.argsort([len(caption) for caption in captions], kind="stable")  # like lengths share a batch
    texts = [trunks.texts([captions[i] for i in order[at : at + _BATCH]]) for at in range(0, len(order), _BATCH)]
    by_row = np.concatenate(texts)[np.argsort(order)]
    return Features(readable, _tensor(np.concatenate(parts), device), _tensor(by_row, device))


def _squares(trunks: Trunks, pairs: Sequence[Pair]) -> Iterator[tuple[list[int], UInt8Array]]:
    """Rows and pixels of the photos that can be read, a batch at a time; the next one is decoded meanwhile."""
    with ThreadPoolExecutor() as pool:

        def prepare(path: Path) -> UInt8Array:
            return trunks.prepare_image(to_image(path, trunks.side_px))

        def submit(start: int) -> list[tuple[int, Future[UInt8Array]]]:
            rows = range(start, min(start + _BATCH, len(pairs)))
            return [(row, pool.submit(prepare, pairs[row].path)) for row in rows]

        ahead = submit(0)
        for start in range(0, len(pairs), _BATCH):
            now, ahead = ahead, submit(start + _BATCH)
            rows, squares = [], []
            for row, pending in now:
                try:
                    squares.append(pending.result())
                    rows.append(row)
                except DecodeError as error:
                    log.warning("%s; left out", error)
            if rows:
                yield rows, np.stack(squares)


class _OwnTrunks:
    """EfficientNet-Lite and MiniLM with their pooling, out of the model itself."""

    def __init__(self, source: Path, vae: MultimodalVAE, architecture: Architecture, device: str) -> None:
        path = source / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise CheckpointError(f"{path} cannot be read ({error}); copy the model again") from error
        self._image = cast(ImageEncoder, vae.encoders["image"])
        self._text = cast(TextEncoder, vae.encoders["text"])
        self.side_px, self._max_tokens, self._device = architecture.side_px, architecture.max_tokens, device

    def prepare_image(self, image: Image.Image) -> UInt8Array:
        return square(image, self.side_px)

    def images(self, batch: UInt8Array) -> Float32Array:
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float().to(self._device)
        with torch.no_grad():
            return _array(self._image.features(self._image.trunk.early(pixels)))

    def texts(self, texts: Sequence[str]) -> Float32Array:
        ids = tokenise(self._tokenizer, texts, self._max_tokens)
        with torch.no_grad():
            return _array(self._text.features(ids.to(self._device)))


def _trunks(source: Path, vae: MultimodalVAE, architecture: Architecture, device: str) -> Trunks:
    if architecture.kind != "backbone":
        return _OwnTrunks(source, vae, architecture, device)
    from mmsearch.inference.backbone_model import load_backbone_under

    found = find_tried(str(source))
    assert found.described is not None
    assert found.backbone is not None
    return load_backbone_under(source, found.described, found.backbone.name, device)


def _array(features: Tensor) -> Float32Array:
    return np.asarray(features.float().cpu().numpy(), np.float32)


def _tensor(features: Float32Array, device: str) -> Tensor:
    return torch.from_numpy(features).to(device)
