"""From the bytes of one file to upright RGB pixels or to a string; whatever goes wrong is a `DecodeError`, a reason.

In: a path. Out: `Picture` or `str`. Files here are hostile until proven otherwise: sizes are read from the header
before any pixel is, only the formats of `scan.IMAGE_SUFFIXES` are tried, a library's crash is a skip. Next:
`pipeline.py`.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from datetime import datetime
from typing import BinaryIO, Final

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from indexer.errors import DecodeError

PIXEL_LIMIT: Final = 178_956_970  # 2/3 GiB of RGB: where Pillow, too, takes a picture for a decompression bomb
TEXT_LIMIT_BYTES: Final = 64 * 1024  # more of a text than any text encoder reads
EXCERPT_CHARS: Final = 240
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # JPEG stands for MPO, too

_LARGE_PIXELS: Final = 40_000_000
_one_large_picture = threading.Semaphore(1)  # two pictures of 178 MP at once would take more memory than all the rest


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright RGB pixels, perhaps scaled down, and what the file says of itself; sizes are the whole picture's."""

    image: Image.Image
    width_px: int
    height_px: int
    taken_at: datetime | None = None
    camera: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None

    def without_pixels(self) -> Picture:
        """The same, holding no memory for the pixels."""
        return replace(self, image=Image.new("RGB", (1, 1)))


def decode_image(file: BinaryIO, *, side_px: int, pixel_limit: int = PIXEL_LIMIT) -> Picture:
    """Decode one picture for a model that looks at `side_px`; JPEGs are scaled while decoding to about twice that.

    Raises: DecodeError, one line, for anything that is not a complete picture within `pixel_limit`.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            width_px, height_px = image.size
            if width_px * height_px > pixel_limit:
                raise DecodeError(_too_large(f"{width_px:,} x {height_px:,} pixels", pixel_limit))
            if width_px * height_px > _LARGE_PIXELS and image.format not in ("JPEG", "MPO"):
                with _one_large_picture:
                    return _picture(image, side_px)
            return _picture(image, side_px)
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError("not a picture (its content is none of JPEG, PNG, WebP, GIF, BMP, TIFF)") from error
    except Image.DecompressionBombError as error:
        found = re.search(r"\d{4,}", str(error))  # Pillow opens no such file
        what = f"{int(found[0]):,} pixels" if found else "the picture"
        raise DecodeError(_too_large(what, pixel_limit)) from error
    except Exception as error:  # decoders fail on broken input with any exception there is, and no file may end a run
        raise DecodeError(f"broken picture ({_one_line(error)})") from error


def decode_text(data: bytes) -> str:
    """The beginning of a text file (`TEXT_LIMIT_BYTES` at most) as a string: UTF-8, UTF-16 with a mark, else Latin-1.

    Raises: DecodeError when there are no words in it, or it is not text.
    """
    cut = data[:TEXT_LIMIT_BYTES]
    if cut.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = cut.decode("utf-16", errors="replace")
    elif b"\0" in cut:
        raise DecodeError("not text (it holds NUL bytes)")
    else:
        text = _utf8_or_latin1(cut, truncated=len(data) > len(cut))
    text = text.strip().strip("\ufeff").strip()
    if not text:
        raise DecodeError("empty text")
    return text


def _utf8_or_latin1(data: bytes, *, truncated: bool) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if truncated and error.start >= len(data) - 3:  # the cut went through a character
            return data[: error.start].decode("utf-8-sig")
        return data.decode("latin-1")


def _picture(image: Image.Image, side_px: int) -> Picture:
    width_px, height_px = image.size
    exif = _exif(image)
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (2 * side_px, 2 * side_px))  # the DCT scale that leaves the shorter side at least this long
    image.load()
    upright = _rgb(ImageOps.exif_transpose(image) if exif.orientation in range(2, 9) else image)
    if exif.orientation in range(5, 9):
        width_px, height_px = height_px, width_px
    return Picture(upright, width_px, height_px, exif.taken_at, exif.camera, exif.latitude_deg, exif.longitude_deg)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB: transparency on white, 16 and 32 bits scaled to 8."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        page = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(page, layered).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0.0, neginf=0.0)  # [h, w]
    top = float(values.max(initial=0.0))
    if image.mode != "F":
        full = 65535.0 if top > 255 or image.mode.startswith("I;16") else 255.0
    else:
        full = 1.0 if top <= 1 else max(top, 255.0)
    return Image.fromarray((values / full * 255).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class _Exif:
    orientation: int = 1
    taken_at: datetime | None = None
    camera: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None


def _exif(image: Image.Image) -> _Exif:
    """What EXIF says; broken EXIF says nothing, and never costs the picture."""
    try:
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        place = exif.get_ifd(ExifTags.IFD.GPSInfo)
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        make, model = (str(exif.get(tag, "")).strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
        taken = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
        return _Exif(
            orientation=orientation if isinstance(orientation, int) else 1,
            taken_at=_moment(taken),
            camera=(model if model.startswith(make) else f"{make} {model}").strip() or None,
            latitude_deg=_degrees(place, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S", 90),
            longitude_deg=_degrees(place, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W", 180),
        )
    except Exception:  # hostile bytes again: Pillow raises SyntaxError, struct.error, KeyError, ... on broken EXIF
        return _Exif()


def _moment(value: object) -> datetime | None:
    try:
        return datetime.strptime(str(value).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None


def _degrees(place: dict[int, object], tag: int, reference: int, negative: str, limit: float) -> float | None:
    parts = place.get(tag)
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    try:
        degrees = float(parts[0]) + float(parts[1]) / 60 + float(parts[2]) / 3600
    except (ZeroDivisionError, TypeError, ValueError):
        return None
    if not 0 <= degrees <= limit:  # also false for the nan of a 0/0
        return None
    return -degrees if str(place.get(reference, "")).upper().startswith(negative) else degrees


def _too_large(what: str, pixel_limit: int) -> str:
    return f"too large: {what}, the limit is {pixel_limit / 1e6:.0f} million"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
