"""The image trunk: published features to four decimals, shapes and counts of the family, batch norm folded away."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from mmsearch.models.efficientnet_lite import (
    VARIANTS,
    EfficientNetLite,
    _convolve,
    chain,
    fold_batch_norm,
    load_folded,
)

SHARED = Path(__file__).parents[4] / "shared"


@pytest.mark.skipif(not (SHARED / "init").is_dir(), reason="no ../shared/init beside this checkout")
def test_lite0_gives_the_reference_features() -> None:
    trunk = EfficientNetLite("lite0", scale=1.0, offset=-127.0)
    load_folded(trunk, load_file(SHARED / "init" / "efficientnet_lite0.safetensors"))
    with np.load(SHARED / "init" / "reference_features.npz") as stored:
        names, expected = stored["images"].tolist(), stored["efficientnet_lite0"]
    photos = [Image.open(SHARED / "photos" / "coco_1500" / "images" / name).convert("RGB") for name in names]
    squares = np.stack([np.array(photo.resize((224, 224), Image.Resampling.BICUBIC)) for photo in photos])
    with torch.inference_mode():
        features = trunk(torch.from_numpy(squares).permute(0, 3, 1, 2).float()).mean((2, 3))  # [8, 1280]
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-4, rtol=0)


def test_lite2_is_the_published_size() -> None:
    trunk = EfficientNetLite("lite2")
    assert sum(p.numel() for p in trunk.parameters()) == 4_782_024
    assert trunk.side_px == 260
    blocks = chain("lite2")
    assert len(blocks) == 2 + 1 + 3 + 3 + 4 + 4 + 5 + 1
    widths = [block[-1].channels_out for block in blocks]
    assert widths == [32, 16, *[24] * 3, *[48] * 3, *[88] * 4, *[120] * 4, *[208] * 5, 352, 1280]
    assert [block[-1].adds_input for block in blocks[1:6]] == [False, False, True, True, False]


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_convolution_takes_what_the_one_before_gives(variant: str) -> None:
    convolutions = [conv for block in chain(variant) for conv in block]
    assert convolutions[0].channels_in == 3
    for before, after in itertools.pairwise(convolutions):
        assert after.channels_in == before.channels_out, after.name
    strides = [conv.stride for conv in convolutions]
    assert np.prod(strides) == 32
    assert len({conv.name for conv in convolutions}) == len(convolutions)
    with pytest.raises(KeyError):
        chain("lite9")


def test_the_cut_lies_before_the_first_block_at_stride_32() -> None:
    trunk = EfficientNetLite("lite2").eval()
    pixels = torch.randint(0, 256, (2, 3, 260, 260), generator=torch.Generator().manual_seed(0)).float()
    with torch.inference_mode():
        early = trunk.early(pixels)
        late = trunk.late(early)
        assert early.shape == (2, 120, 17, 17)  # 260 / 16, rounded up
        assert late.shape == (2, 1280, 9, 9)
        assert torch.equal(trunk(pixels), late)
        # pixel 127 is what training calls zero: the first convolution then sees nothing but its bias and the border
        grey = trunk.blocks[0](torch.full((1, 3, 8, 8), 127.0) * trunk.scale + trunk.offset)
        torch.testing.assert_close(
            grey, F.relu6(trunk.blocks[0].convs[0].bias)[None, :, None, None].expand(1, 32, 4, 4)
        )
    late_weights = sum(p.numel() for p in trunk.late_parameters())
    early_weights = sum(p.numel() for block in trunk.blocks[: trunk.cut] for p in block.parameters())
    assert early_weights + late_weights == 4_782_024
    assert late_weights > 3 * early_weights


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [((4, 4), 3, 2, (0, 1, 0, 1)), ((4, 4), 3, 1, (1, 1, 1, 1)), ((4, 4), 5, 2, (1, 2, 1, 2)),
     ((4, 4), 1, 1, (0, 0, 0, 0)), ((4, 5), 3, 2, (1, 1, 0, 1))],
)  # fmt: skip
def test_odd_padding_is_at_the_bottom_and_right(
    size: tuple[int, int], kernel: int, stride: int, pads: tuple[int, int, int, int]
) -> None:
    conv = nn.Conv2d(2, 2, kernel, stride, groups=2)
    x = torch.randn(1, 2, *size)
    assert torch.allclose(_convolve(conv, x), conv(F.pad(x, pads)), atol=1e-6)  # left, right, top, bottom


def test_a_costly_depthwise_convolution_is_trained_in_float32_on_a_cpu() -> None:
    conv, x = nn.Conv2d(4, 4, 5, groups=4), torch.randn(2, 4, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        assert _convolve(conv, x).dtype == torch.float32
        conv.requires_grad_(False)
        assert _convolve(conv, x).dtype == torch.bfloat16  # nothing to train: the fast way forward


def test_folding_equals_convolution_and_batch_norm() -> None:
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}
    pairs: dict[str, nn.Sequential] = {}

    def published(conv: str, norm: str, name: str, layer: nn.Conv2d) -> None:
        batch_norm = nn.BatchNorm2d(layer.out_channels, eps=1e-3)
        nn.init.uniform_(batch_norm.weight, 0.5, 2)
        nn.init.normal_(batch_norm.bias)
        assert batch_norm.running_mean is not None
        assert batch_norm.running_var is not None
        batch_norm.running_mean.normal_()
        batch_norm.running_var.uniform_(0.01, 3)
        state[f"{conv}.weight"] = layer.weight.detach()
        state.update({f"{norm}.{k}": v.detach() for k, v in batch_norm.state_dict().items()})
        pairs[name] = nn.Sequential(layer, batch_norm).eval()

    published("_conv_stem", "_bn0", "stem", nn.Conv2d(3, 4, 3, bias=False))
    published("_conv_head", "_bn1", "head", nn.Conv2d(6, 8, 1, bias=False))
    published(
        "_blocks.0._depthwise_conv", "_blocks.0._bn1", "blocks.0.depthwise", nn.Conv2d(4, 4, 3, groups=4, bias=False)
    )
    published("_blocks.0._project_conv", "_blocks.0._bn2", "blocks.0.project", nn.Conv2d(4, 5, 1, bias=False))
    published("_blocks.1._expand_conv", "_blocks.1._bn0", "blocks.1.expand", nn.Conv2d(5, 30, 1, bias=False))
    published(
        "_blocks.1._depthwise_conv", "_blocks.1._bn1", "blocks.1.depthwise", nn.Conv2d(30, 30, 5, groups=30, bias=False)
    )
    published("_blocks.1._project_conv", "_blocks.1._bn2", "blocks.1.project", nn.Conv2d(30, 6, 1, bias=False))
    folded = fold_batch_norm(state)
    assert set(folded) == {f"{name}.{kind}" for name in pairs for kind in ("weight", "bias")}
    for name, pair in pairs.items():
        layer = pair[0]
        assert isinstance(layer, nn.Conv2d)
        x = torch.randn(2, layer.in_channels, 7, 7)
        found = F.conv2d(x, folded[f"{name}.weight"], folded[f"{name}.bias"], groups=layer.groups)
        torch.testing.assert_close(found, pair(x), msg=name)


def test_weights_of_another_shape_are_refused() -> None:
    trunk = EfficientNetLite("lite0")
    weights = {}
    for block in trunk.blocks:
        for spec, conv in zip(block.specs, block.convs, strict=True):
            weights |= {f"{spec.name}.weight": conv.weight.detach(), f"{spec.name}.bias": conv.bias.detach()}
    with pytest.raises(ValueError, match=r"stem.bias is nothing, the architecture needs \(32,\)"):
        load_folded(trunk, {k: v for k, v in weights.items() if k != "stem.bias"})
    with pytest.raises(ValueError, match=r"blocks.0.depthwise.weight is \(1, 1, 3, 3\)"):
        load_folded(trunk, {**weights, "blocks.0.depthwise.weight": torch.zeros(1, 1, 3, 3)})
    other = EfficientNetLite("lite0")
    load_folded(other, weights)
    assert all(torch.equal(a, b) for a, b in zip(trunk.parameters(), other.parameters(), strict=True))
