"""The text transformer: a BERT encoder of MiniLM's size, small enough to read, ready for export.

In: token ids `[n, t]`, padded with 0. Out: token states `[n, t, 384]`. Weights start from all-MiniLM-L6-v2.
Sources: BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805), MiniLM (Wang et al. 2020,
https://arxiv.org/abs/2002.10957). Next: `heads.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAD_ID = 0


@dataclass(frozen=True)
class BertSize:
    """Sizes of the transformer; the defaults are MiniLM-L6's."""

    vocabulary: int = 30522
    width: int = 384
    layers: int = 6
    heads: int = 12
    hidden: int = 1536
    positions: int = 128  # of the 512 trained ones; longer texts are cut


class MiniLM(nn.Module):
    """BERT encoder without pooler and without token types (type 0 is folded into the positions)."""

    def __init__(self, size: BertSize) -> None:
        super().__init__()
        self.size = size
        self.words = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.positions, size.width)
        self.norm = nn.LayerNorm(size.width, eps=1e-12)
        self.layers = nn.ModuleList(_Layer(size) for _ in range(size.layers))

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids int64 `[n, t]` -> states `[n, t, width]`; padding is not attended to."""
        x: Tensor = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]])  # [n, t, w]
        mask = (ids != PAD_ID)[:, None, None, :]  # [n, 1, 1, t]
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def layer_parameters(self) -> list[nn.Parameter]:
        """The weights above the embeddings, which stay fixed."""
        return [p for layer in self.layers for p in layer.parameters()]


class _Layer(nn.Module):
    def __init__(self, size: BertSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.query = nn.Linear(size.width, size.width)
        self.key = nn.Linear(size.width, size.width)
        self.value = nn.Linear(size.width, size.width)
        self.out = nn.Linear(size.width, size.width)
        self.norm_attention = nn.LayerNorm(size.width, eps=1e-12)
        self.up = nn.Linear(size.width, size.hidden)
        self.down = nn.Linear(size.hidden, size.width)
        self.norm_out = nn.LayerNorm(size.width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, t, w = x.shape
        by_head = (n, t, self.heads, w // self.heads)
        q, k, v = (f(x).view(by_head).transpose(1, 2) for f in (self.query, self.key, self.value))
        attended = _attend(q, k, v, mask)  # [n, heads, t, w/heads]
        x = self.norm_attention(x + self.out(attended.transpose(1, 2).reshape(n, t, w)))
        out: Tensor = self.norm_out(x + self.down(F.gelu(self.up(x))))
        return out


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention; written out where it is trained on a CPU.

    The fused kernel's backward pass there takes 160 ms where this takes 18 (256 captions of 18 tokens, two cores).
    """
    if q.device.type != "cpu" or not q.requires_grad:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5  # [n, heads, t, t]
    weights: Tensor = scores.masked_fill(~mask, -1e4).softmax(-1).to(v.dtype)
    return weights @ v


def load_bert(model: MiniLM, state: Mapping[str, Tensor]) -> None:
    """Fill the transformer from a Hugging Face BERT state dict.

    Raises:
        KeyError: where a weight of the architecture is missing.
    """
    e = "embeddings."
    renamed = {
        "words.weight": state[e + "word_embeddings.weight"],
        "positions.weight": (state[e + "position_embeddings.weight"] + state[e + "token_type_embeddings.weight"][0])[
            : model.size.positions
        ],
        "norm.weight": state[e + "LayerNorm.weight"],
        "norm.bias": state[e + "LayerNorm.bias"],
    }
    parts = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "out": "attention.output.dense",
        "norm_attention": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm_out": "output.LayerNorm",
    }
    for i in range(model.size.layers):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                renamed[f"layers.{i}.{ours}.{kind}"] = state[f"encoder.layer.{i}.{theirs}.{kind}"]
    with torch.no_grad():
        model.load_state_dict(renamed)
