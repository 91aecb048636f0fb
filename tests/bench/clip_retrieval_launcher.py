"""Starts clip-retrieval in its own environment, offline: `python clip_retrieval_launcher.py WEIGHTS inference ...`.

In: a file for weights, made at the first start, and a command line of the tool. Two things differ from `clip-retrieval`
itself: ViT-B/32 has random weights, since nothing is downloaded, and torchvision, which needs a build that matches
torch's exactly, is stood in for by the five transforms that CLIP uses, with the same work done by Pillow and torch.
Nothing of the project is imported: this file runs under another environment's Python. Next: `rivals.py`, which uses it.
"""

from __future__ import annotations

import enum
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


class InterpolationMode(enum.Enum):
    BILINEAR = Image.Resampling.BILINEAR
    BICUBIC = Image.Resampling.BICUBIC


class Compose:
    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


class Resize:
    """The shorter side to `size`, as torchvision rounds."""

    def __init__(self, size: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR) -> None:
        self.size, self.resampling = size, interpolation.value

    def __call__(self, image: Image.Image) -> Image.Image:
        short, long = sorted(image.size)
        other = int(self.size * long / short)
        width, height = (self.size, other) if image.width <= image.height else (other, self.size)
        return image.resize((width, height), self.resampling)


class CenterCrop:
    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        left, top = round((image.width - self.size) / 2), round((image.height - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size))


class ToTensor:
    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


class Normalize:
    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = (torch.tensor(numbers)[:, None, None] for numbers in (mean, std))

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return (tensor - self.mean) / self.std


class _StandIn(types.ModuleType):
    """Any name asked of it that is not known here is an empty class: imported, never used."""

    __path__: list[str] = []  # noqa: RUF012 - marks a package, as the import system wants it

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def stand_in_for_torchvision() -> None:
    for name in ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc"):
        module = _StandIn(f"torchvision{name}")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module
    for known in (InterpolationMode, Compose, Resize, CenterCrop, ToTensor, Normalize):
        setattr(sys.modules["torchvision.transforms"], known.__name__, known)


def weights(path: Path) -> str:
    """A file of random weights in the architecture of ViT-B/32."""
    from clip.model import CLIP

    if not path.exists():
        torch.manual_seed(0)
        torch.save(CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12).state_dict(), path)
    return str(path)


def main() -> None:
    path = Path(sys.argv.pop(1))
    import clip.clip

    clip.clip._download = lambda *_: weights(path)
    from clip_retrieval.cli import main as run

    run()


if __name__ in ("__main__", "__mp_main__"):  # the second is what a process of the tool's calls this file
    stand_in_for_torchvision()
if __name__ == "__main__":
    main()
