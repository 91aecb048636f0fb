"""A CLIP of a few thousand random weights, written to a folder as the hub would give it: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SIDE_PX = 32
FEATURES = 24
POSITIONS = 40
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Configuration, weights, tokenizer (single letters) and picture processor; returns the folder."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vocabulary = len(_letters())
    config = CLIPConfig(
        text_config={**small, **IDS, "vocab_size": vocabulary, "max_position_embeddings": POSITIONS},
        vision_config={**small, "image_size": SIDE_PX, "patch_size": 8},
        projection_dim=FEATURES,
    )
    return write_clip(folder, config, seed)


def write_clip(folder: Path, config: CLIPConfig, seed: int = 0) -> Path:
    """A CLIP of this configuration with random weights; each letter is a token; returns the folder."""
    side_px = config.vision_config.image_size
    pictures = CLIPImageProcessorPil(size={"shortest_edge": side_px}, crop_size={"height": side_px, "width": side_px})
    torch.manual_seed(seed)
    CLIPModel(config).save_pretrained(folder)
    words = CLIPTokenizer(vocab=_letters(), merges=[])
    CLIPProcessor(image_processor=pictures, tokenizer=words).save_pretrained(folder)
    return folder


def pictures(n: int, seed: int = 0) -> list[Image.Image]:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, SIDE_PX, SIDE_PX, 3), np.uint8)
    return [Image.fromarray(one) for one in pixels]


def words(n: int) -> list[str]:
    rng = np.random.default_rng(7)
    return ["".join(rng.choice(list("abcdefgh "), 12)).strip() for _ in range(n)]


def _letters() -> dict[str, int]:
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in "abcdefghijklmnopqrstuvwxyz0123456789":
        vocabulary |= {letter: len(vocabulary), f"{letter}</w>": len(vocabulary) + 1}
    return vocabulary
