"""Any sentence-transformers model that embeds images and texts, with VAE heads: the door to other encoders.

    load_backbone("clip-ViT-B-32")           isotropic heads: its own space and ranking, works at once
    fit_heads + save_linear_heads(folder)    closed-form heads on vectors in hand (`closed_form.py`)
    mmsearch train RECIPE --model NAME       trained heads, a folder
    load_trained_backbone(folder)            either folder

In: a name or folder, then pictures and words. Out: posteriors. The backbone is frozen; everything here reads its
unit-normalised vectors. Needs torch and sentence-transformers 5.4 or newer, imported on loading; torchvision is not
needed: pictures go through the processors' PIL backend. Next: `closed_form.py`, `training/run.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from indexer.base.types import Float32Array, Modality, Posterior, UInt8Array
from mmsearch.errors import CheckpointError, ModelError
from mmsearch.inference.closed_form import LinearHeads, isotropic_heads
from mmsearch.inference.pictures import Picture
from mmsearch.inference.posterior import embed_images, embed_texts, product_of_experts
from mmsearch.inference.preprocess import square

BATCH = 32
REACH_TIMEOUT_S = 5.0
EXAMPLE = "clip-ViT-B-32"
_VERSIONS = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")  # of the installation, not of the model


class Heads(Protocol):
    """From the backbone's features to posteriors."""

    @property
    def dim(self) -> int:
        """Latent size d."""

    def posterior(self, features: Float32Array, modality: Modality) -> Posterior:
        """Unit-normalised features `[n, f]` -> posteriors `[n, d]`."""


class TrainedHeads:
    """The heads of a `MultimodalVAE` whose encoders start at features."""

    def __init__(self, vae: Any, dim: int) -> None:
        self._vae, self.dim = vae, dim

    def posterior(self, features: Float32Array, modality: Modality) -> Posterior:
        """Unit-normalised features `[n, f]` -> posteriors `[n, d]`."""
        import torch

        with torch.inference_mode():
            found = self._vae.encoders[modality].from_features(torch.from_numpy(features))
        return Posterior(found.mu.numpy(), found.logvar.numpy())


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
        except Exception as error:  # whatever the model's own code raises
            raise ModelError(
                f"model {name!r} does not run ({_first_line(error)}); name another, as {EXAMPLE}"
            ) from error
        if image.shape != text.shape:
            found = f"images {image.shape[1]}, texts {text.shape[1]}"
            raise ModelError(
                f"model {name!r} has features of two widths ({found}); name one with one space, as {EXAMPLE}"
            )
        self.features = image.shape[1]

    @classmethod
    def load(cls, name: str, device: str = "cpu") -> Backbone:
        """From a folder, from what was downloaded before, or from the hub, in this order.

        Raises:
            ModelError: it cannot be found or loaded, or does not embed both images and texts.
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
        features = self._model.encode(
            inputs, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True
        )
        return np.asarray(features, np.float32)


class SentenceTransformerModel:
    """A backbone with heads; satisfies `indexer.base.types.Encoder`."""

    def __init__(self, name: str, backbone: Backbone, heads: Heads, heads_digest: str) -> None:
        self.name, self.backbone, self.heads = name, backbone, heads
        self.dim, self.side_px = heads.dim, backbone.side_px
        self._heads_digest = heads_digest

    @classmethod
    def load(cls, name: str, heads: LinearHeads | None = None, device: str = "cpu") -> SentenceTransformerModel:
        """A backbone by name or folder; without `heads`, the isotropic ones.

        Raises:
            ModelError: see `Backbone.load`; or heads made for another width.
        """
        backbone = Backbone.load(name, device)
        heads = isotropic_heads(backbone.features) if heads is None else heads
        if heads.features != backbone.features:
            raise ModelError(
                f"the heads read {heads.features} features, {name!r} gives {backbone.features}; fit them again"
            )
        return cls(name, backbone, heads, _digest(heads))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the backbone's fingerprint and the heads, hex."""
        return hashlib.sha256(f"{self.backbone.fingerprint}\n{self._heads_digest}".encode()).hexdigest()

    def prepare_image(self, image: Image.Image) -> UInt8Array:
        """One upright picture -> uint8 `[side_px, side_px, 3]`."""
        return self.backbone.prepare_image(image)

    def encode_images(self, batch: UInt8Array) -> Posterior:
        """uint8 `[n, side_px, side_px, 3]` -> posteriors `[n, d]`."""
        return self.heads.posterior(self.backbone.images(batch), "image")

    def encode_texts(self, texts: Sequence[str]) -> Posterior:
        """Strings -> posteriors `[n, d]`; longer texts are cut at the backbone's limit."""
        return self.heads.posterior(self.backbone.texts(texts), "text")

    def bare(self) -> SentenceTransformerModel:
        """The same backbone without these heads, in its own space; what they are compared with."""
        heads = isotropic_heads(self.backbone.features)
        return SentenceTransformerModel(self.backbone.name, self.backbone, heads, _digest(heads))

    def with_heads(self, bare: Posterior, modality: Modality) -> Posterior:
        """Posteriors `[n, d]` from those of `bare()`, `[n, f]`, which nothing has to be encoded for again."""
        lengths = np.linalg.norm(bare.mu, axis=1, keepdims=True)
        return self.heads.posterior((bare.mu / lengths).astype(np.float32), modality)

    def fuse(self, posteriors: Sequence[Posterior]) -> Posterior:
        """Product of experts with the prior."""
        return product_of_experts(posteriors)

    def embed_images(self, images: Sequence[Picture]) -> Posterior:
        """Paths, PIL images or uint8 arrays -> posteriors `[n, d]`."""
        return embed_images(self, images)

    def embed_texts(self, texts: Sequence[str]) -> Posterior:
        """Strings -> posteriors `[n, d]`."""
        return embed_texts(self, texts)


def load_backbone(name: str, device: str = "cpu") -> SentenceTransformerModel:
    """A sentence-transformers model as it is, by name or folder; see `SentenceTransformerModel.load`."""
    return SentenceTransformerModel.load(name, device=device)


def load_trained_backbone(folder: Path, device: str = "cpu") -> SentenceTransformerModel:
    """A folder of heads, trained or closed-form, and the backbone it names.

    Raises:
        CheckpointError: an incomplete folder, or heads made on other weights than the backbone has now.
        ModelError: the backbone cannot be loaded.
    """
    from mmsearch.models.checkpoint import load_vae, load_weights, read_description

    described = read_description(folder)
    name = described["architecture"].get("backbone", "")
    heads: Heads
    if described.get("heads") == "linear":
        tensors = {key: value.numpy() for key, value in load_weights(folder, described).items()}
        try:
            heads = LinearHeads(**tensors)
        except TypeError as error:
            raise CheckpointError(f"{folder} does not hold linear heads ({error}); fit them again") from error
    else:
        vae, architecture = load_vae(folder)
        heads = TrainedHeads(vae, architecture.latent_dim)
    backbone = Backbone.load(name, device)
    made_on = str(described.get("backbone_fingerprint"))
    if made_on != backbone.fingerprint:
        raise CheckpointError(
            f"the heads in {folder} were made on {name!r} {made_on[:12]}, found {backbone.fingerprint[:12]}; "
            "make them again"
        )
    return SentenceTransformerModel(str(folder), backbone, heads, str(described["fingerprint"]))


def save_linear_heads(folder: Path, backbone: Backbone, heads: LinearHeads) -> Path:
    """Write heads as a model folder that `--model` and `load_model` take; returns it."""
    import torch
    from safetensors.torch import save_file

    from mmsearch.models.checkpoint import FORMAT, Architecture
    from mmsearch.models.digest import fingerprint

    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({key: torch.from_numpy(value.copy()) for key, value in vars(heads).items()}, weights)
    architecture = Architecture(
        kind="backbone",
        backbone=absolute_name(backbone.name),
        latent_dim=heads.dim,
        image_features=heads.features,
        text_features=heads.features,
        side_px=backbone.side_px,
    )
    described = {
        "format": FORMAT,
        "name": folder.name,
        "architecture": asdict(architecture),
        "heads": "linear",
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "backbone_fingerprint": backbone.fingerprint,
    }
    described["fingerprint"] = fingerprint(described)
    (folder / "model.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return folder


def absolute_name(name: str) -> str:
    """A backbone's name as a folder of heads remembers it: a path holds from every working directory."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _open(name: str, device: str) -> Any:
    """The model from this machine, else from the hub."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    place = str(Path(name).expanduser())
    where: dict[str, Any] = {"device": device, "processor_kwargs": {"backend": "pil"}, "local_files_only": True}
    is_folder = Path(place).is_dir()
    logging.disable_progress_bar()  # of reading weights; a download shows its own
    try:
        return SentenceTransformer(place if is_folder else name, **where)
    except Exception as error:  # hub, transformers, safetensors and tokenizers have no base class in common
        if is_folder or _looks_like_path(name):
            found = _first_line(error) if is_folder else "no such folder"
            raise ModelError(
                f"model {name!r} cannot be loaded ({found}); name a model or its folder, as {EXAMPLE}"
            ) from error
    finally:
        logging.enable_progress_bar()
    _check_hub(name)
    try:
        return SentenceTransformer(name, **(where | {"local_files_only": False}))
    except Exception as error:
        found = _first_line(error)
        raise ModelError(f"model {name!r} cannot be loaded ({found}); check its name at huggingface.co") from error


def _check_hub(name: str) -> None:
    """Ask the hub once: the loader itself would try each of a dozen files six times, for minutes."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_TIMEOUT_S)
    except Exception as error:  # the errors of whichever client the hub's package uses
        raise ModelError(
            f"model {name!r} is not on this machine and {constants.ENDPOINT} cannot be reached; "
            "download it once with a network, or name a folder"
        ) from error


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name


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


def _digest(heads: LinearHeads) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(vars(heads).items()):
        digest.update(f"{key} {value.shape}\n".encode() + value.tobytes())
    return digest.hexdigest()


def _without_versions(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_versions(value) for key, value in config.items() if key not in _VERSIONS}
    return config


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
