"""A model on disk: a folder with `model.json` (what it is), `model.safetensors` (its weights) and `tokenizer.json`.

In: a `MultimodalVAE` and its `Architecture`. Out: the folder, and back. Weights may be stored as float32, float16 or
int8 with one scale an output channel; loading gives float32 either way. The fingerprint is the sha256 of weights and
architecture: a folder whose weights do not match its JSON is refused. Next: `inference/load_model.py` runs it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from indexer.base.safetensors_header import tensor_places
from mmsearch.errors import CheckpointError
from mmsearch.models.digest import FORMAT, check_file, fingerprint, read_description
from mmsearch.models.efficientnet_lite import FEATURES, VARIANTS, EfficientNetLite
from mmsearch.models.heads import FeatureDecoder
from mmsearch.models.minilm import BertSize
from mmsearch.models.vae import FeatureEncoder, ImageEncoder, MultimodalVAE, TextEncoder

Precision = Literal["float32", "float16", "int8"]
_LARGE = 100_000  # elements
SCALE = "::scale"  # the name of an int8 tensor's scales: the tensor's name and this


@dataclass(frozen=True)
class Architecture:
    """Everything needed to rebuild the modules; the start of `model.json`.

    Attributes:
        kind: `pretrained`, `scratch` or `backbone`; see `training/recipe.py`.
        trunk: member of the EfficientNet-Lite family (`pretrained`).
        backbone: name of the sentence-transformers model (`backbone`).
        vocabulary: rows of the word embedding.
        latent_dim: d.
        hidden_dim: of heads and decoders.
        image_features: width of the image features the head reads.
        text_features: width of the text features the head reads.
        max_tokens: longer texts are cut.
        side_px: side of the square the image encoder looks at.
    """

    kind: Literal["pretrained", "scratch", "backbone"]
    trunk: str = ""
    backbone: str = ""
    vocabulary: int = 0
    latent_dim: int = 256
    hidden_dim: int = 1024
    image_features: int = FEATURES
    text_features: int = 384
    max_tokens: int = 64
    side_px: int = 64


def build(architecture: Architecture, dropout: float = 0.0) -> MultimodalVAE:
    """The modules with random weights.

    Raises:
        CheckpointError: for an architecture this version does not know.
    """
    a = architecture
    if a.kind == "scratch":
        from mmsearch.models.conv64 import ConvImageDecoder, ConvImageEncoder
        from mmsearch.models.gru import GRUTextDecoder, GRUTextEncoder

        return MultimodalVAE(
            {"image": ConvImageEncoder(a.latent_dim), "text": GRUTextEncoder(a.vocabulary, a.latent_dim)},
            {"image": ConvImageDecoder(a.latent_dim), "text": GRUTextDecoder(a.vocabulary, a.latent_dim)},
        )
    decoders = {
        "image": FeatureDecoder(a.latent_dim, a.hidden_dim // 2, a.image_features),
        "text": FeatureDecoder(a.latent_dim, a.hidden_dim // 2, a.text_features),
    }
    encoders: dict[str, nn.Module]
    if a.kind == "backbone":
        encoders = {
            "image": FeatureEncoder(a.image_features, a.hidden_dim, a.latent_dim, dropout),
            "text": FeatureEncoder(a.text_features, a.hidden_dim, a.latent_dim, dropout),
        }
    elif a.kind == "pretrained" and a.trunk in VARIANTS:
        size = BertSize(vocabulary=a.vocabulary)
        encoders = {
            "image": ImageEncoder(EfficientNetLite(a.trunk), a.hidden_dim, a.latent_dim, dropout),
            "text": TextEncoder(size, a.hidden_dim, a.latent_dim, dropout),
        }
    else:
        raise CheckpointError(
            f"architecture {a.kind!r} with trunk {a.trunk!r} is not known to this version of mmsearch"
        )
    return MultimodalVAE(encoders, decoders)


def save_model(
    folder: Path,
    vae: MultimodalVAE,
    architecture: Architecture,
    *,
    name: str,
    tokenizer_json: str | None = None,
    precision: Precision = "float32",
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write the folder; returns it. `extra` joins `model.json` (metrics, temperature) outside the fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(pack(vae.state_dict(), precision), weights)
    weights.chmod(0o644)  # safetensors writes for the owner alone; an installed model is for everybody
    if tokenizer_json is not None:
        (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    described = {
        "format": FORMAT,
        "name": name,
        "architecture": asdict(architecture),
        "precision": precision,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        **(extra or {}),
    }
    described["fingerprint"] = fingerprint(described)
    (folder / "model.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return folder


def load_vae(folder: Path) -> tuple[MultimodalVAE, Architecture]:
    """Read a folder back: the modules in evaluation mode with float32 weights, and their architecture.

    Raises:
        CheckpointError: a missing or truncated file, weights of another model, an unknown architecture.
    """
    described = read_description(folder)
    try:
        known = {f.name for f in fields(Architecture)}
        architecture = Architecture(**{k: v for k, v in described["architecture"].items() if k in known})
        vae = build(architecture)
        vae.load_state_dict(unpack(load_weights(folder, described)))
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{folder} does not hold the architecture it names ({first}); train it again") from error
    except CheckpointError as error:
        if str(folder) in str(error):
            raise
        raise CheckpointError(f"{folder}: {error}") from error
    return vae.eval(), architecture


def load_weights(folder: Path, described: Mapping[str, Any]) -> dict[str, Tensor]:
    """The stored tensors as they are, after checking that they are the ones that `model.json` names.

    Raises:
        CheckpointError: where the file is missing, truncated or another one.
    """
    path = folder / "model.safetensors"
    check_file(path, described)
    try:
        tensor_places(path)
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy the model again") from error


def pack(state: Mapping[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    """Weights as stored. int8: large matrices get one scale an output row, small ones (depthwise and early
    convolutions, which rounding hurts and which weigh little) float16; what has one dimension stays float32."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        value = tensor.detach().float().contiguous()
        if precision == "int8" and value.ndim >= 2 and value.numel() >= _LARGE:
            rows = value.flatten(1)
            scale = rows.abs().amax(1).clamp_min(1e-12) / 127  # [out]
            packed[name] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape)
            packed[name + SCALE] = scale
        else:
            packed[name] = value.half() if precision != "float32" and value.ndim >= 2 else value
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored weights -> float32."""
    state = {}
    for name, tensor in packed.items():
        if not name.endswith(SCALE):
            scale = packed.get(name + SCALE)
            value = tensor.float()
            state[name] = value if scale is None else value * scale.view(-1, *[1] * (value.ndim - 1))
    return state


def save_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """Write tensors, and notes that belong to them, whole or not at all: to a temporary name, then renamed."""
    temporary = path.with_suffix(".tmp")
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, temporary, dict(notes) if notes else None)
    temporary.replace(path)


def load_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Tensors of a file that training wrote, on a device.

    Raises:
        CheckpointError: a missing or truncated file.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path, device=device)
        return tensors
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def load_notes(path: Path) -> dict[str, str]:
    """The notes that `save_tensors` wrote beside the tensors.

    Raises:
        CheckpointError: a missing or truncated file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"checkpoint {path} cannot be read ({error}); delete it and train from the start")
