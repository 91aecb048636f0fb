"""Convert pixels of any mode to sRGB: colour profiles are applied, transparency is put on white, 16 bits become 8.

In: a decoded Pillow image. Out: an image of mode RGB. Next: `decode.py`, which calls this.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageCms

_ALPHA_MODES: Final = ("RGBA", "LA", "PA", "La", "RGBa")
_DEEP_MODES: Final = ("I", "F")


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB (sRGB where its profile can be read); the same object when it is RGB already."""
    profile = image.info.get("icc_profile")
    if image.mode in _DEEP_MODES or image.mode.startswith("I;16"):
        image = _to_eight_bits(image)
    elif image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = _flattened_on_white(image.convert("RGBA"))  # blended before the profile is applied, as browsers do
    if image.mode == "LAB":
        return _apply_profile(image, None) or image.convert("L").convert("RGB")
    if isinstance(profile, bytes) and profile:
        return _apply_profile(image, profile) or image.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _flattened_on_white(layered: Image.Image) -> Image.Image:
    page = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(page, layered).convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0.0, neginf=0.0)  # [h, w]
    top = float(values.max(initial=0.0))
    if image.mode != "F":
        full = 65535.0 if top > 255 or image.mode.startswith("I;16") else 255.0
    else:
        full = 1.0 if top <= 1 else max(top, 255.0)
    return Image.fromarray((values / full * 255).clip(0, 255).astype(np.uint8))


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """The picture in sRGB; None where the profile is sRGB, does not fit the pixels or cannot be read."""
    mode = image.mode if image.mode in ("RGB", "L", "CMYK", "LAB") else "RGB"
    transform = _transform(profile, mode)
    if transform is None:
        return None
    pixels = image if image.mode == mode else image.convert(mode)
    try:
        return ImageCms.applyTransform(pixels, transform)
    except (ImageCms.PyCMSError, ValueError):
        return None


@lru_cache(maxsize=16)  # a folder has few profiles; building a transform takes as long as applying it
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.createProfile("LAB") if profile is None else ImageCms.getOpenProfile(io.BytesIO(profile))
        if profile is not None and "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        screen = ImageCms.createProfile("sRGB")
        # the cache of the last pixel is not thread-safe
        return ImageCms.buildTransform(
            source, screen, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.NOCACHE
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
