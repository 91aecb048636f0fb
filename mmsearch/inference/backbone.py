"""A frozen sentence-transformers model that embeds pictures and words in one space.

In: a name or a folder, then pictures and words. Out: unit-normalised features, float32 `[n, f]`. A model is taken from
a folder or from what was downloaded before (`hub.py`), checked to be data (`folder_checks.py`), and loaded without
asking the hub anything. Needs torch and sentence-transformers 6 or newer, imported on loading; torchvision is not
needed: pictures go through the processors' PIL backend.
Next: `backbone_model.py`, which puts VAE heads on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from indexer.base.types import Float32Array, UInt8Array
from mmsearch.errors import ModelError
from mmsearch.inference.folder_checks import check_backbone_folder
from mmsearch.inference.hub import EXAMPLE, offline, place_of
from mmsearch.inference.posterior import one_line_for
from mmsearch.inference.preprocess import square

BATCH = 32
_VERSIONS = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")  # of the installation, not of the model


class Backbone:
    """A frozen sentence-transformers model: pictures and words to unit-normalised features, float32 `[n, f]`."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self._model = model
        pictures = getattr(model.processor, "image_processor", model.processor)
        self.side_px = _side_px(pictures, name)
        self.crops = bool(getattr(pictures, "do_center_crop", False))
        self.mean_and_std = [getattr(pictures, "image_mean", None), getattr(pictures, "image_std", None)]
        _limit_tokens(model)
        blank = np.zeros((1, self.side_px, self.side_px, 3), np.uint8)
        try:
            image, text = self.images(blank), self.texts(["a photo"])
        except ModelError as error:
            raise ModelError(f"{error}, or name another, as {EXAMPLE}") from error
        if image.shape != text.shape:
            found = f"images {image.shape[1]}, texts {text.shape[1]}"
            raise ModelError(
                f"model {name!r} has features of two widths ({found}); name one with one space, as {EXAMPLE}"
            )
        self.features = image.shape[1]

    @classmethod
    def load(cls, name: str, device: str = "cpu") -> Backbone:
        """From a folder or from what was downloaded before.

        Raises:
            ModelError: it cannot be found or loaded, is more than data, or does not embed both images and texts.
        """
        model = _open(name, device)
        modalities = set(getattr(model, "modalities", ()))
        if not {"image", "text"} <= modalities:
            found = ", ".join(sorted(str(m) for m in modalities)) or "nothing known"
            raise ModelError(
                f"model {name!r} embeds {found}; expected image and text; name one that does, as {EXAMPLE}"
            )
        return cls(name, model)

    def prepare_image(self, image: Image.Image) -> UInt8Array:
        """One upright picture -> uint8 `[side_px, side_px, 3]`, cut to its middle where the model was trained so."""
        width, height = image.size
        if not self.crops or width == height:
            return square(image, self.side_px)
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return square(image, self.side_px, (left, top, left + side, top + side))

    def images(self, batch: UInt8Array) -> Float32Array:
        """uint8 `[n, side_px, side_px, 3]` -> features `[n, f]`."""
        # of the model's own size, so that its processor neither scales nor cuts, only standardises
        return self._encode([Image.fromarray(pixels) for pixels in batch])

    def texts(self, texts: Sequence[str]) -> Float32Array:
        """Strings -> features `[n, f]`."""
        # named as text: a bare string that looks like an address or a file would be fetched as a picture
        return self._encode([{"text": text} for text in texts])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over every weight and over the configuration that the vectors depend on, hex."""
        import torch

        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            raw = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {raw.dtype} {list(raw.shape)}\n".encode())
            digest.update(memoryview(raw.reshape(-1).view(torch.uint8).numpy()))
        digest.update(json.dumps(self._configuration(), sort_keys=True, default=str).encode())
        return digest.hexdigest()

    def _configuration(self) -> dict[str, Any]:
        config, tokenizer = self._model.config, self._model.tokenizer
        return {
            "modules": [type(module).__name__ for module in self._model],
            "config": _without_versions(config.to_diff_dict()) if config is not None else {},
            "pixels": [self.side_px, self.crops, self.mean_and_std],
            "words": sorted(tokenizer.get_vocab().items()) if tokenizer is not None else [],
            "max_tokens": getattr(tokenizer, "model_max_length", None),
        }

    def _encode(self, inputs: list[Any]) -> Float32Array:
        if not inputs:
            return np.zeros((0, self.features), np.float32)
        with one_line_for(self.name):
            features = self._model.encode(
                inputs, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True
            )
        return np.asarray(features, np.float32)


def _open(name: str, device: str) -> Any:
    folder = place_of(name)
    check_backbone_folder(folder)
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # of reading weights
    try:
        with offline():
            return SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
                processor_kwargs={"backend": "pil"},
            )
    except Exception as error:  # transformers, safetensors and tokenizers have no base class in common
        raise ModelError(
            f"model {name!r} cannot be loaded ({_first_line(error)}); name a model or its folder, as {EXAMPLE}"
        ) from error
    finally:
        logging.enable_progress_bar()


def _side_px(pictures: Any, name: str) -> int:
    """The side of the square the model looks at, from its processor's crop or size."""
    sizes = [getattr(pictures, "crop_size", None) if getattr(pictures, "do_center_crop", False) else None]
    sizes.append(getattr(pictures, "size", None))
    for size in sizes:
        for key in ("height", "shortest_edge"):
            side = size if isinstance(size, int) else getattr(size, key, None)
            if isinstance(side, int):
                return side
    raise ModelError(f"model {name!r} does not say what size its pictures have; name another, as {EXAMPLE}")


def _limit_tokens(model: Any) -> None:
    """Cut texts at the model's positions, where its tokenizer does not: one token more is an error deep inside."""
    tokenizer, config = model.tokenizer, model.config
    positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
    if tokenizer is not None and isinstance(positions, int):
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)


def _without_versions(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_versions(value) for key, value in config.items() if key not in _VERSIONS}
    return config


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
