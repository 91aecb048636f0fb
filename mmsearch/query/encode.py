"""From what a person gives, words, a picture or both, to the posterior the library is searched with.

In: a text, a picture (a path, PIL or an array), an encoder. Out: a `Posterior` of one row, whose mean is the vector
the library is searched with. Next: `hits.py`, the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from indexer.base.types import Encoder, Posterior
from indexer.search.query_bank import QueryBank, bank_of
from mmsearch.errors import DecodeError, QueryError

if TYPE_CHECKING:  # a search for words decodes nothing
    from PIL import Image

Picture: TypeAlias = "str | Path | Image.Image | NDArray[np.uint8]"


def check_query(text: str | None, image: Picture | None, k: int) -> None:
    """Refuse what cannot be answered, before a model is loaded for it.

    Raises:
        QueryError: neither words nor a picture; k below 1; a path that is no file.
    """
    if k < 1:
        raise QueryError(f"k is {k}; expected 1 or more")
    if image is None and (text is None or not text.strip()):
        raise QueryError("the query is empty; give some words or a picture")
    if isinstance(image, (str, Path)):
        check_file(Path(image))


def check_file(path: Path) -> None:
    """Raise `QueryError` where `path` is not a file."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise QueryError(f"{path} {found}; expected a picture or a text file")


def encode_query(encoder: Encoder, text: str | None = None, image: Picture | None = None) -> Posterior:
    """Words, a picture, or both fused by the product of experts with the prior -> posterior `[1, d]`."""
    posteriors = []
    if text is not None and text.strip():
        posteriors.append(encoder.encode_texts([_clean(text)]))
    if image is not None:
        upright = _guarded(Path(image), encoder.side_px) if isinstance(image, (str, Path)) else None
        pixels = encoder.prepare_image(upright or to_image(image, encoder.side_px))  # [side_px, side_px, 3]
        posteriors.append(encoder.encode_images(pixels[np.newaxis]))
    return posteriors[0] if len(posteriors) == 1 else encoder.fuse(posteriors)


def query_bank(encoder: Encoder, text: str | None = None, image: Picture | None = None) -> QueryBank | None:
    """What the scores of such a query are corrected by; None for words with a picture, which no bank is of."""
    with_text = text is not None and bool(text.strip())
    if with_text == (image is not None):
        return None
    return bank_of(encoder, "text" if with_text else "image")


def encode_queries(encoder: Encoder, texts: Sequence[str]) -> Posterior:
    """Many texts -> posteriors `[m, d]`, encoded in batches of texts of like length."""
    from mmsearch.inference.posterior import embed_texts

    return embed_texts(encoder, [_clean(text) for text in texts])


def encode_file(encoder: Encoder, path: Path) -> Posterior:
    """A picture or a text file that is not in the library -> posterior `[1, d]`."""
    from indexer.files.scan import TEXT_SUFFIXES

    if path.suffix.lower() in TEXT_SUFFIXES:
        return encode_query(encoder, text=_read_text(path))
    return encode_query(encoder, image=path)


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


def _guarded(path: Path, side_px: int) -> Image.Image | None:
    """A picture whose decoder may crash, by way of a process that may die; None for all others, which cost no process.

    Raises: DecodeError.
    """
    from indexer.files.kinds import HEAD_BYTES, RISKY, kind_of, missing_extra

    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
    except OSError:
        return None  # said by whoever reads it next
    if kind not in RISKY or missing_extra(kind):
        return None
    from indexer.decoding.sandbox import Sandbox

    try:
        with Sandbox(side_px) as sandbox:
            return sandbox.decode(path).image
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error


def _read_image(path: Path, side_px: int) -> Image.Image:
    from indexer.decoding.decode import decode_image

    try:
        with path.open("rb") as file:
            return decode_image(file, side_px=side_px).image
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror or error}; expected a picture that can be read") from error


def _read_text(path: Path) -> str:
    from indexer.decoding.decode import decode_text

    try:
        return decode_text(path.read_bytes())
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror or error}; expected a text that can be read") from error


def _clean(text: str) -> str:
    """Bytes of the command line that are not UTF-8 arrive as surrogates, which no tokenizer takes."""
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text).strip()
