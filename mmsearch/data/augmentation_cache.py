"""Augmented views of the training photos, computed once: activations before the trunk's first stride-32 block.

In: photos and a trunk. Out: one memory-mapped float16 file a view, `[n, h, w, c]`, read instead of photos. Four fifths
of a trunk's arithmetic lie before the cut, so that an epoch costs a fifth. View 0 is the whole photo; the others are
random crops, flips and colours. The files resume: rows already written are not computed again.
Next: `training/trunk_stages.py`, which trains on them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from mmsearch.inference.preprocess import square
from mmsearch.models.efficientnet_lite import EfficientNetLite

log = logging.getLogger(__name__)
_CHUNK = 64  # rows computed and flushed together; a crash loses at most this many


@dataclass(frozen=True)
class Augmentation:
    """How a view differs from the photo.

    Attributes:
        area_min: smallest part of the photo's area that a crop keeps, 0..1.
        aspect_max: largest stretch of a crop's sides.
        flip: whether half of the crops are mirrored.
        colour: strength of the random brightness, contrast and saturation, 0 for none.
        grey: part of the views without colour; people's older photos have none.
    """

    area_min: float = 0.45
    aspect_max: float = 1.33
    flip: bool = True
    colour: float = 0.3
    grey: float = 0.1


def augment(image: Image.Image, side_px: int, how: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One random view of a photo, uint8 `[side, side, 3]`."""
    width, height = image.size
    area = rng.uniform(how.area_min, 1.0)
    stretch = np.exp(rng.uniform(-1, 1) * np.log(how.aspect_max) / 2)
    w, h = min(1.0, np.sqrt(area) * stretch) * width, min(1.0, np.sqrt(area) / stretch) * height
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    view = Image.fromarray(square(image, side_px, (left, top, left + w, top + h)))
    if how.flip and rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if how.colour:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            view = enhance(view).enhance(1 + how.colour * rng.uniform(-1, 1))
    if rng.random() < how.grey:
        view = view.convert("L").convert("RGB")
    return np.array(view, dtype=np.uint8)


class AugmentationCache:
    """Cached activations of `photos`, one file a view.

    Args:
        folder: where the files live; safe to delete.
        photos: the pictures, in a fixed order.
        trunk: computes them; its weights are part of the cache's key.
        how: the augmentation of views 1 and up.
        seed: of the crops.
    """

    def __init__(
        self, folder: Path, photos: Sequence[Path], trunk: EfficientNetLite, how: Augmentation, seed: int
    ) -> None:
        self.photos, self.trunk, self.how, self.seed = tuple(photos), trunk, how, seed
        with torch.no_grad():
            device = next(trunk.parameters()).device
            probe = trunk.early(torch.zeros(1, 3, trunk.side_px, trunk.side_px, device=device))
        self.shape = (probe.shape[2], probe.shape[3], probe.shape[1])  # h, w, c
        self.folder = folder / self._key()

    def view(self, v: int, rows: int | None = None) -> NDArray[np.float16]:
        """View `v` of the first `rows` photos, float16 `[rows, h, w, c]`; computes what is missing."""
        n = len(self.photos) if rows is None else rows
        self.folder.mkdir(parents=True, exist_ok=True)
        data, marker = self.folder / f"view-{v}.f16", self.folder / f"view-{v}.json"
        done = json.loads(marker.read_text())["rows"] if marker.exists() and data.exists() else 0
        shape = (len(self.photos), *self.shape)
        if not data.exists():
            np.memmap(data, np.float16, "w+", shape=shape).flush()
        store = np.memmap(data, np.float16, "r+", shape=shape)
        for start, activations in self._compute(v, done, n):
            store[start : start + len(activations)] = activations
            marker.write_text(json.dumps({"rows": start + len(activations)}))
            if (start // _CHUNK) % 20 == 0:
                log.info("view %d: %d of %d photos", v, start + len(activations), n)
        return store[:n]

    def _compute(self, v: int, first: int, last: int) -> Iterator[tuple[int, NDArray[np.float16]]]:
        starts = range(first, last, _CHUNK)
        with ThreadPoolExecutor(1) as ahead:  # the next chunk is decoded while this one is computed
            pending = None
            for start in starts:
                pixels = (pending or ahead.submit(self._pixels, v, start, last)).result()
                pending = ahead.submit(self._pixels, v, start + _CHUNK, last) if start + _CHUNK < last else None
                x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()  # [n, 3, side, side], channels last
                device = next(self.trunk.parameters()).device
                with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                    y = self.trunk.early(x.to(device))
                yield start, y.permute(0, 2, 3, 1).to(torch.float16).contiguous().cpu().numpy()

    def _pixels(self, v: int, start: int, last: int) -> NDArray[np.uint8]:
        return np.stack([self._one(v, i) for i in range(start, min(start + _CHUNK, last))])

    def _one(self, v: int, i: int) -> NDArray[np.uint8]:
        with Image.open(self.photos[i]) as file:
            image = file.convert("RGB")
        if v == 0:
            return square(image, self.trunk.side_px)
        return augment(image, self.trunk.side_px, self.how, np.random.default_rng((self.seed, v, i)))

    def _key(self) -> str:
        digest = hashlib.sha256()
        for p in self.trunk.parameters():
            digest.update(p.detach().cpu().numpy().tobytes())
        for photo in self.photos:
            digest.update(f"{photo.parent.parent.name}/{photo.name} {photo.stat().st_size}\n".encode())
        digest.update(repr((self.how, self.seed, self.shape)).encode())
        return digest.hexdigest()[:16]
