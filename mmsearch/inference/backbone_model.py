"""VAE heads on a frozen sentence-transformers model: the way to encoders other than the default model.

    load_backbone("clip-ViT-B-32")           isotropic heads: its own space and ranking, works at once
    fit_heads + save_linear_heads(folder)    closed-form heads on vectors in hand (`closed_form.py`)
    mmsearch train RECIPE --model NAME       trained heads, a folder
    load_trained_backbone(...)               either folder

In: a name or folder, then pictures and words. Out: posteriors. Next: `closed_form.py`, `../training/run.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from indexer.base.types import Float32Array, Modality, Posterior, UInt8Array
from mmsearch.errors import CheckpointError
from mmsearch.inference import posterior
from mmsearch.inference.backbone import Backbone
from mmsearch.inference.closed_form import LinearHeads, isotropic_heads
from mmsearch.inference.known_models import full_name, remember_made, remember_model, with_heads


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


class SentenceTransformerModel:
    """A backbone with heads; satisfies `indexer.base.types.Encoder`."""

    fuse = staticmethod(posterior.product_of_experts)
    embed_images = posterior.embed_images
    embed_texts = posterior.embed_texts

    def __init__(self, name: str, backbone: Backbone, heads: Heads, heads_digest: str) -> None:
        self.name, self.backbone, self.heads = name, backbone, heads
        self.dim, self.side_px = heads.dim, backbone.side_px
        self._heads_digest = heads_digest

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the backbone's fingerprint and the heads, hex."""
        return with_heads(self.backbone.fingerprint, self._heads_digest)

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
        return _as_it_is(self.backbone)

    def with_heads(self, bare: Posterior, modality: Modality) -> Posterior:
        """Posteriors `[n, d]` from those of `bare()`, `[n, f]`, which nothing has to be encoded for again."""
        lengths = np.linalg.norm(bare.mu, axis=1, keepdims=True)
        return self.heads.posterior((bare.mu / lengths).astype(np.float32), modality)


def load_backbone(name: str, device: str = "cpu") -> SentenceTransformerModel:
    """A sentence-transformers model as it is, by name or folder. Raises: ModelError, see `Backbone.load`."""
    return _as_it_is(Backbone.load(name, device))


def _as_it_is(backbone: Backbone) -> SentenceTransformerModel:
    heads = isotropic_heads(backbone.features)
    return SentenceTransformerModel(backbone.name, backbone, heads, _digest(heads))


def load_trained_backbone(
    name: str, folder: Path, described: Mapping[str, Any], backbone_name: str, device: str = "cpu"
) -> SentenceTransformerModel:
    """A folder of heads, trained or closed-form, with its `model.json`, on the backbone that this user calls so.

    Raises:
        CheckpointError: an incomplete folder, or heads made on other weights than the backbone has now.
        ModelError: the backbone cannot be loaded.
    """
    from mmsearch.models.checkpoint import load_vae, load_weights

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
    backbone = load_backbone_under(folder, described, backbone_name, device)
    return SentenceTransformerModel(name, backbone, heads, str(described["fingerprint"]))


def load_backbone_under(folder: Path, described: Mapping[str, Any], backbone_name: str, device: str) -> Backbone:
    """The backbone alone of a folder of heads. Raises: as `load_trained_backbone`."""
    backbone = Backbone.load(backbone_name, device)
    made_on = str(described.get("backbone_fingerprint"))
    if made_on != backbone.fingerprint:
        raise CheckpointError(
            f"the heads in {folder} were made on {backbone_name!r} {made_on[:12]}, found {backbone.fingerprint[:12]}; "
            "make them again"
        )
    return backbone


def save_linear_heads(folder: Path, backbone: Backbone, heads: LinearHeads) -> Path:
    """Write heads as a model folder that `--model` and `load_model` take; returns it."""
    import torch
    from safetensors.torch import save_file

    from mmsearch.models.checkpoint import Architecture
    from mmsearch.models.digest import FORMAT, fingerprint

    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({key: torch.from_numpy(value.copy()) for key, value in vars(heads).items()}, weights)
    architecture = Architecture(
        kind="backbone",
        backbone=full_name(backbone.name),
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
    remember_model(backbone, backbone.name)
    remember_made(folder)
    return folder


def _digest(heads: LinearHeads) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(vars(heads).items()):
        digest.update(f"{key} {value.shape}\n".encode() + value.tobytes())
    return digest.hexdigest()
