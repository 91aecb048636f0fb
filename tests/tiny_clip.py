"""A CLIP of a few thousand random weights, written to a folder as the hub would give it: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SIDE_PX = 32
FEATURES = 24
POSITIONS = 40


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Configuration, weights, tokenizer (single letters) and picture processor; returns the folder."""
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in "abcdefghijklmnopqrstuvwxyz0123456789":
        vocabulary |= {letter: len(vocabulary), f"{letter}</w>": len(vocabulary) + 1}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={**small, **ids, "vocab_size": len(vocabulary), "max_position_embeddings": POSITIONS},
        vision_config={**small, "image_size": SIDE_PX, "patch_size": 8},
        projection_dim=FEATURES,
    )
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE_PX}, crop_size={"height": SIDE_PX, "width": SIDE_PX})
    torch.manual_seed(seed)
    CLIPModel(config).save_pretrained(folder)
    words = CLIPTokenizer(vocab=vocabulary, merges=[])
    CLIPProcessor(image_processor=pictures, tokenizer=words).save_pretrained(folder)
    return folder
