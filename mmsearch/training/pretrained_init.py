"""Where a run starts: the published weights of the trunk and of the transformer, or heads alone on features.

In: names of installed packages (or files), or features. Out: a `MultimodalVAE` with fresh heads; with those weights,
the tokenizer too. Used for training only; the shipped model needs none of them. Next: `run.py`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.errors import ModelError
from mmsearch.models.checkpoint import Architecture, build
from mmsearch.models.efficientnet_lite import VARIANTS, fold_batch_norm, load_folded
from mmsearch.models.minilm import load_bert
from mmsearch.models.vae import FeatureEncoder, ImageEncoder, MultimodalVAE, TextEncoder
from mmsearch.training.recipe import Model


def pretrained(model: Model) -> tuple[MultimodalVAE, Architecture, Tokenizer]:
    """The pretrained architecture with its published weights, heads random.

    Raises:
        ModelError: a package or file that is missing.
    """
    folder = _find(model.text_init, "tokenizer.json").parent
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    architecture = Architecture(
        kind="pretrained",
        trunk=model.trunk,
        vocabulary=tokenizer.get_vocab_size(),
        latent_dim=model.latent_dim,
        hidden_dim=model.hidden_dim,
        max_tokens=model.max_tokens,
        side_px=VARIANTS[model.trunk].side_px,
    )
    vae = build(architecture, model.dropout)
    image, text = cast(ImageEncoder, vae.encoders["image"]), cast(TextEncoder, vae.encoders["text"])
    weights = _find(model.image_init, "*.safetensors", "*.pth")
    if weights.suffix == ".pth":
        load_folded(image.trunk, fold_batch_norm(torch.load(weights, map_location="cpu", weights_only=True)))
    else:
        load_folded(image.trunk, load_file(weights))
    load_bert(text.transformer, load_file(folder / "model.safetensors"))
    return vae, architecture, tokenizer


def fresh_heads(
    model: Model, images: Tensor, texts: Tensor, backbone: str = "", side_px: int = 64
) -> tuple[MultimodalVAE, Architecture]:
    """Random heads on features of the training set, `[n, f]` and `[t, g]`, standardised by them."""
    architecture = Architecture(
        kind="backbone",
        backbone=backbone,
        latent_dim=model.latent_dim,
        hidden_dim=model.hidden_dim,
        image_features=images.shape[1],
        text_features=texts.shape[1],
        side_px=side_px,
    )
    vae = build(architecture, model.dropout)
    for modality, features in (("image", images), ("text", texts)):
        cast(FeatureEncoder, vae.encoders[modality]).head.fit_standardisation(features)
    return vae, architecture


def _find(place: str, *patterns: str) -> Path:
    """The first file that matches below a package, a folder, or the file itself."""
    root = Path(place)
    if not root.exists():
        spec = importlib.util.find_spec(place) if place.isidentifier() else None
        if spec is None or spec.origin is None:
            raise ModelError(f"no package, folder or file {place!r}; run 'pip install {place.replace('_', '-')}'")
        root = Path(spec.origin).parent
    if root.is_file():
        return root
    for pattern in patterns:
        found = sorted(root.rglob(pattern))
        if found:
            return found[0]
    raise ModelError(f"{root} holds no {' or '.join(patterns)}; name another package or folder in the recipe")
