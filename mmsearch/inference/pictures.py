"""A picture as a person gives it, a path, a PIL image or an array, becomes one upright RGB image.

In: a `Picture`. Out: a PIL image, no smaller than the model needs. Pictures whose decoder may crash are decoded in a
sandbox process (`decode_in_sandbox`). Next: `preprocess.py`, from the image to the model's square.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import DecodeError, DecodeInterrupted, QueryError

if TYPE_CHECKING:  # a search for words decodes nothing
    from PIL import Image

Picture: TypeAlias = "str | Path | Image.Image | NDArray[np.uint8]"


def to_image(picture: Picture, side_px: int) -> Image.Image:
    """Any picture -> upright RGB, decoded in this process. Arrays are uint8 `[h, w]`, `[h, w, 3]` or `[h, w, 4]`."""
    from PIL import Image, ImageOps

    if isinstance(picture, (str, Path)):
        return _read_image(Path(picture), side_px)
    if isinstance(picture, Image.Image):
        return _on_white(ImageOps.exif_transpose(picture))
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        shape = list(array.shape)
        raise QueryError(f"the array is {array.dtype} {shape}; expected uint8 [h, w], [h, w, 3] or [h, w, 4]")
    return _on_white(Image.fromarray(array))


def _on_white(image: Image.Image) -> Image.Image:
    """Transparency becomes white, as for files; what lies under it was never meant to be seen."""
    if image.mode not in ("RGBA", "LA"):
        return image.convert("RGB")
    from PIL import Image

    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")


def decode_in_sandbox(path: Path, side_px: int) -> Image.Image | None:
    """A picture whose decoder may crash, by way of a process that may die; None for all others, which cost no process.

    Raises: DecodeError.
    """
    from indexer.files.kinds import HEAD_BYTES, RISKY, kind_of, missing_extra
    from indexer.files.opening import open_regular

    try:
        with open_regular(path) as file:
            kind = kind_of(file.read(HEAD_BYTES))
    except OSError:
        return None  # reported by the read that follows
    if kind not in RISKY or missing_extra(kind):
        return None
    from indexer.decoding.sandbox import Sandbox

    try:
        with Sandbox(side_px) as sandbox:
            return sandbox.decode(path).image
    except DecodeInterrupted as error:
        raise DecodeInterrupted(f"{path}: {error}; ask again") from error
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error


def _read_image(path: Path, side_px: int) -> Image.Image:
    from indexer.decoding.decode import decode_image
    from indexer.files.opening import open_regular

    try:
        with open_regular(path) as file:
            return decode_image(file, side_px=side_px).image
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror or error}; expected a picture that can be read") from error
