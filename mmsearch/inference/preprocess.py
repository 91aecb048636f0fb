"""Pixels as the model sees them: pure functions from one upright picture to a square of numbers.

In: a PIL image of any size. Out: uint8 `[side, side, 3]`. The whole picture is squashed to the square: nothing at the
border is lost, and training pictures come squashed too. Next: `load_model.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a search for words squares nothing
    from PIL import Image

Box = tuple[float, float, float, float]


def square(image: Image.Image, side_px: int, box: Box | None = None) -> NDArray[np.uint8]:
    """The picture, or the part of it inside `box` (left, top, right, bottom in pixels), as uint8 `[side, side, 3]`."""
    from PIL import Image

    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if rgb.size == (side_px, side_px) and box is None:
        return np.array(rgb, dtype=np.uint8)
    # reducing_gap lets PIL shrink by whole factors first: the same picture to the eye, several times faster
    small = rgb.resize((side_px, side_px), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.array(small, dtype=np.uint8)  # [side, side, 3]
