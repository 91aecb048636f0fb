"""The image trunk: the EfficientNet-Lite family as a plain chain of convolutions, batch norm folded in.

In: pixels RGB 0..255 `[n, 3, H, W]`. Out: the last feature map `[n, 1280, h, w]`. The chain is cut in two before the
first stride-32 block: `early` is computed once and cached by the trainer, `late` holds most of the weights and is what
fine-tuning moves first. Folded batch norm makes training and the exported graph the same arithmetic. Source: Tan & Le
2019 (EfficientNet, https://arxiv.org/abs/1905.11946); the Lite variants drop squeeze-and-excitation and use ReLU6.
Next: `heads.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 1280
_BN_EPS = 1e-3  # TensorFlow's default, with which the published weights were trained

# (blocks, kernel, stride, expansion, channels) of Lite0; width and depth multiply the last and the first
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Variant:
    """One member of the family: width and depth multipliers and the side it was trained at."""

    width: float
    depth: float
    side_px: int


VARIANTS = {
    "lite0": Variant(1.0, 1.0, 224),
    "lite1": Variant(1.0, 1.1, 240),
    "lite2": Variant(1.1, 1.2, 260),
    "lite3": Variant(1.2, 1.4, 280),
    "lite4": Variant(1.4, 1.8, 300),
}


@dataclass(frozen=True)
class ConvSpec:
    """One convolution of the chain."""

    name: str
    channels_in: int
    channels_out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    relu6: bool = True
    adds_input: bool = False  # the block's input is added to this convolution's output


def chain(variant: str) -> tuple[tuple[ConvSpec, ...], ...]:
    """The convolutions of a variant, block by block; the first tuple is the stem, the last the 1x1 head.

    Raises:
        KeyError: for a variant that is not in `VARIANTS`.
    """
    v = VARIANTS[variant]
    blocks: list[tuple[ConvSpec, ...]] = [(ConvSpec("stem", 3, 32, kernel=3, stride=2),)]
    channels = 32
    for stage, (repeats, kernel, first_stride, expansion, base) in enumerate(_STAGES):
        out = _round_to_8(base * v.width)
        fixed = stage in (0, len(_STAGES) - 1)  # the Lite variants do not deepen the first and the last stage
        for i in range(repeats if fixed else math.ceil(repeats * v.depth)):
            stride, name = first_stride if i == 0 else 1, f"blocks.{len(blocks) - 1}"
            wide = channels * expansion
            convs = [ConvSpec(f"{name}.expand", channels, wide)] if expansion != 1 else []
            convs.append(ConvSpec(f"{name}.depthwise", wide, wide, kernel, stride, groups=wide))
            adds = stride == 1 and channels == out
            convs.append(ConvSpec(f"{name}.project", wide, out, relu6=False, adds_input=adds))
            blocks.append(tuple(convs))
            channels = out
    blocks.append((ConvSpec("head", channels, FEATURES),))
    return tuple(blocks)


class EfficientNetLite(nn.Module):
    """A trunk of the family. Constructing makes random weights; `load_folded` puts pretrained ones in.

    Args:
        variant: `lite0` .. `lite4`.
        scale: pixels are multiplied by this
        offset: and this is added, before the stem.
    """

    def __init__(self, variant: str, scale: float = 1 / 128, offset: float = -127 / 128) -> None:
        super().__init__()
        self.side_px = VARIANTS[variant].side_px
        self.scale, self.offset = scale, offset
        self.blocks = nn.ModuleList(_Block(convs) for convs in chain(variant))
        strides = [max(c.stride for c in convs) for convs in chain(variant)]
        downs = [i for i, s in enumerate(strides) if s == 2]
        self.middle, self.cut = downs[-2], downs[-1]  # the first blocks at strides 16 and 32

    def early(self, pixels: Tensor) -> Tensor:
        """RGB 0..255 `[n, 3, H, W]` -> activations before the first stride-32 block `[n, c, H/16, W/16]`."""
        x = pixels * self.scale + self.offset
        for block in self.blocks[: self.cut]:
            x = block(x)
        return x

    def late(self, activations: Tensor) -> Tensor:
        """Those activations -> the last feature map `[n, 1280, H/32, W/32]`."""
        x = activations
        for block in self.blocks[self.cut :]:
            x = block(x)
        return x

    def forward(self, pixels: Tensor) -> Tensor:
        """RGB 0..255 `[n, 3, H, W]` -> the last feature map `[n, 1280, H/32, W/32]`."""
        return self.late(self.early(pixels))

    def late_parameters(self) -> list[nn.Parameter]:
        """The weights after the cut."""
        return [p for block in self.blocks[self.cut :] for p in block.parameters()]

    def middle_parameters(self) -> list[nn.Parameter]:
        """The weights of the stride-16 blocks before the cut."""
        return [p for block in self.blocks[self.middle : self.cut] for p in block.parameters()]


class _Block(nn.Module):
    def __init__(self, specs: tuple[ConvSpec, ...]) -> None:
        super().__init__()
        self.specs = specs
        self.convs = nn.ModuleList(
            nn.Conv2d(s.channels_in, s.channels_out, s.kernel, s.stride, groups=s.groups) for s in specs
        )

    def forward(self, x: Tensor) -> Tensor:
        start = x
        for spec, conv in zip(self.specs, self.convs, strict=True):
            assert isinstance(conv, nn.Conv2d)
            x = _convolve(conv, x)
            if spec.relu6:
                x = F.relu6(x)
            if spec.adds_input:
                x = x + start
        return x


def load_folded(trunk: EfficientNetLite, weights: Mapping[str, Tensor]) -> None:
    """Fill a trunk from `{"stem.weight": ..., "blocks.0.depthwise.bias": ...}`, batch norm already folded.

    Raises:
        ValueError: where a weight is missing or has another shape.
    """
    for block in trunk.blocks:
        assert isinstance(block, _Block)
        for spec, conv in zip(block.specs, block.convs, strict=True):
            for kind in ("weight", "bias"):
                name, target = f"{spec.name}.{kind}", getattr(conv, kind)
                if name not in weights or weights[name].shape != target.shape:
                    found = tuple(weights[name].shape) if name in weights else "nothing"
                    raise ValueError(f"trunk weight {name} is {found}, the architecture needs {tuple(target.shape)}")
                with torch.no_grad():
                    target.copy_(weights[name].float())


def fold_batch_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names and batch norms of the published `efficientnet-lite-pytorch` checkpoints -> folded weights.

    `w' = w * gamma / sqrt(var + eps)`, `b' = beta - mean * gamma / sqrt(var + eps)`.
    """
    folded: dict[str, Tensor] = {}

    def fold(conv: str, norm: str, name: str) -> None:
        gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _BN_EPS).sqrt()
        folded[f"{name}.weight"] = state[f"{conv}.weight"] * gain[:, None, None, None]
        folded[f"{name}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain

    fold("_conv_stem", "_bn0", "stem")
    fold("_conv_head", "_bn1", "head")
    for i in range(1 + max(int(k.split(".")[1]) for k in state if k.startswith("_blocks."))):
        old, new = f"_blocks.{i}", f"blocks.{i}"
        if f"{old}._expand_conv.weight" in state:
            fold(f"{old}._expand_conv", f"{old}._bn0", f"{new}.expand")
        fold(f"{old}._depthwise_conv", f"{old}._bn1", f"{new}.depthwise")
        fold(f"{old}._project_conv", f"{old}._bn2", f"{new}.project")
    return folded


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution with TensorFlow's SAME padding; a costly depthwise one is trained in float32 on a CPU.

    The backward pass of a 5x5 depthwise convolution takes 255 ms there in bfloat16 and 65 in float32 (128 maps of
    9x9x1248, two cores); at stride 2 209 and 17 (33x33x288): two thirds of a training step.
    """
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    pads = [_same(size, kernel, stride) for size in x.shape[-2:]]
    if all(total % 2 == 0 for total in pads):  # inside the convolution: three times as fast backwards as before it
        padding = (pads[0] // 2, pads[1] // 2)
    else:
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in pads)
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)  # the extra row and column at the bottom and right
    slow = conv.groups > 1 and (kernel > 3 or stride > 1) and x.device.type == "cpu"
    if slow and conv.weight.requires_grad and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x.float(), conv.weight, conv.bias, stride, padding, groups=conv.groups)
    return F.conv2d(x, conv.weight, conv.bias, stride, padding, groups=conv.groups)


def _same(size: int, kernel: int, stride: int) -> int:
    """Rows or columns that SAME adds in all."""
    return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)


def _round_to_8(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
