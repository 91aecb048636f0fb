"""Decode one file: its bytes become upright RGB pixels or a string. Every failure is a `DecodeError` with a reason.

In: an open file. Out: `Picture` or `str`. All files are treated as hostile: the first bytes choose the only decoder
that may read a file, the size is taken from the header before any pixel is decoded, scans and frames are counted, and
an exception of a decoder is a skip. Crashes of a decoder are handled in `sandbox.py`. Next: `ingest/loader.py`.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final

from PIL import Image, UnidentifiedImageError

from indexer.base.disk_errors import is_failing
from indexer.base.errors import DecodeError, DecodeInterrupted
from indexer.decoding import raw
from indexer.decoding.colour import to_rgb
from indexer.decoding.metadata import Metadata, metadata_of
from indexer.files.kinds import ANIMATED, HEAD_BYTES, PILLOW_FORMATS, Kind, kind_of, missing_extra, needs

PIXEL_LIMIT: Final = 178_956_970  # half a GiB of RGB; Pillow's own limit for a decompression bomb
SCAN_LIMIT: Final = 500  # a progressive JPEG usually has ten scans; each is a pass over all pixels for hardly a byte
ANIMATION_PIXEL_LIMIT: Final = 100_000_000  # decoded to reach the last frame of an animation: about two seconds
TEXT_LIMIT_BYTES: Final = 64 * 1024  # more than any text encoder reads
EXCERPT_CHARS: Final = 240
NOT_A_PICTURE: Final = "not a picture (its content is none of JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, camera RAW)"

_ROTATED_BY_DECODER: Final[frozenset[Kind]] = frozenset({"tiff", "heif"})
_LARGE_PIXELS: Final = 40_000_000
_one_large_picture = threading.Semaphore(1)  # two pictures of 178 megapixels at once would take gigabytes
_heif_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright RGB pixels, perhaps scaled down, and the file's metadata.

    Attributes:
        image: the picture, the first frame of an animation, or the first keyframe of a video.
        width_px, height_px: of the upright picture before it was scaled down.
        later: the middle and the last frame of an animation, or the other keyframes of a video.
        times_s: of a video: seconds from its beginning, of `image` and each of `later`.
    """

    image: Image.Image
    width_px: int
    height_px: int
    metadata: Metadata = field(default_factory=Metadata)
    later: tuple[Image.Image, ...] = ()
    times_s: tuple[float, ...] = ()

    def without_pixels(self) -> Picture:
        """The same with one pixel in place of the image, so that it holds no memory."""
        return replace(self, image=Image.new("RGB", (1, 1)), later=())


def decode_image(file: BinaryIO, *, side_px: int, pixel_limit: int = PIXEL_LIMIT) -> Picture:
    """Decode one picture for a model whose input is `side_px` square; a JPEG is scaled while it is decoded.

    Raises: DecodeError, one line, for anything that is not a complete picture within `pixel_limit`.
    """
    with _one_line_errors(pixel_limit):
        kind, opened, container_exif = _open_source(file)
        if kind == "video":
            return _decode_video(file, side_px, pixel_limit)
        with Image.open(opened, formats=PILLOW_FORMATS[kind]) as image:
            width_px, height_px = image.size
            if width_px * height_px > pixel_limit:
                raise DecodeError(_too_large(f"{width_px:,} x {height_px:,} pixels", pixel_limit))
            if image.info.get("progressive"):
                _check_scans(opened)
            if width_px * height_px > _LARGE_PIXELS and image.format not in ("JPEG", "MPO"):
                with _one_large_picture:
                    return _picture(image, kind, side_px, container_exif)
            return _picture(image, kind, side_px, container_exif)


def read_metadata(file: BinaryIO) -> Metadata:
    """The metadata that `decode_image` would return, without decoding the pixels where the format allows.

    Raises: DecodeError.
    """
    with _one_line_errors(PIXEL_LIMIT):
        kind, opened, container_exif = _open_source(file)
        if kind == "video":
            return _decode_video(file, 1, PIXEL_LIMIT).metadata
        with Image.open(opened, formats=PILLOW_FORMATS[kind]) as image:
            if kind == "png" and image.width * image.height <= _LARGE_PIXELS:
                image.load()  # the chunks of a PNG may stand after its pixels
            return metadata_of(image, container_exif)[1]


def decode_text(data: bytes) -> str:
    """The first `TEXT_LIMIT_BYTES` of a text file: UTF-8, UTF-16 with a byte order mark, else Latin-1.

    Raises: DecodeError when it is empty or not text.
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


def _open_source(file: BinaryIO) -> tuple[Kind, BinaryIO, Image.Exif | None]:
    """The kind of a file, what to open, and the EXIF around it: a RAW file is read by the JPEG inside it.

    Raises: DecodeError when no decoder is installed for such a file.
    """
    kind = kind_of(file.read(HEAD_BYTES))
    file.seek(0)
    if kind is None:
        raise DecodeError(NOT_A_PICTURE)
    if raw.is_raw(file, kind):
        preview, exif = raw.preview(file)
        return "jpeg", io.BytesIO(preview), exif
    if missing_extra(kind):
        raise DecodeError(needs(kind))
    if kind == "heif":
        _register_heif()
    return kind, file, None


def _decode_video(file: BinaryIO, side_px: int, pixel_limit: int) -> Picture:
    from indexer.decoding.video import keyframes

    frames, (width_px, height_px), metadata = keyframes(file, side_px=side_px, pixel_limit=pixel_limit)
    images, times_s = [one.image for one in frames], tuple(one.time_s for one in frames)
    return Picture(images[0], width_px, height_px, metadata, tuple(images[1:]), times_s)


def _register_heif() -> None:
    with _heif_lock:
        if "HEIF" not in Image.OPEN:
            from pillow_heif import register_heif_opener

            register_heif_opener(thumbnails=False)


@contextmanager
def _one_line_errors(pixel_limit: int) -> Iterator[None]:
    try:
        yield
    except DecodeError:
        raise
    except MemoryError as error:
        raise DecodeInterrupted("not enough memory (MemoryError)") from error
    except UnidentifiedImageError as error:
        raise DecodeError("broken picture (its header cannot be read)") from error
    except Image.DecompressionBombError as error:
        found = re.search(r"\d{4,}", str(error))  # the size is only in the message: Pillow does not open the file
        what = f"{int(found[0]):,} pixels" if found else "the picture"
        raise DecodeError(_too_large(what, pixel_limit)) from error
    except OSError as error:
        if is_failing(error):
            raise  # the disk, not the picture
        raise DecodeError(f"broken picture ({_one_line(error)})") from error
    except Exception as error:  # decoders raise any exception on broken input, and no file may end a run
        raise DecodeError(f"broken picture ({_one_line(error)})") from error


def _check_scans(file: BinaryIO) -> None:
    """Raise DecodeError for a progressive JPEG with more than `SCAN_LIMIT` scans; the position in `file` is kept."""
    here = file.tell()
    file.seek(0)
    scans, tail = 0, b""
    while block := file.read(1 << 20):
        scans += (tail + block).count(b"\xff\xda")  # FF is followed by 00 in the data of a scan
        tail = block[-1:]
    file.seek(here)
    if scans > SCAN_LIMIT:
        raise DecodeError(f"a JPEG of {scans:,} scans, the limit is {SCAN_LIMIT}")


def _picture(image: Image.Image, kind: Kind, side_px: int, container_exif: Image.Exif | None) -> Picture:
    width_px, height_px = image.size
    orientation, metadata = metadata_of(image, container_exif)
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (2 * side_px, 2 * side_px))  # the DCT scale that leaves the shorter side at least this long
    image.load()
    if kind in _ROTATED_BY_DECODER:
        orientation, (width_px, height_px) = 1, image.size
    first = _reduced(to_rgb(image), side_px)
    later: tuple[Image.Image, ...] = ()
    if kind in ANIMATED:
        first = first.copy() if first is image else first  # the next frame is painted over it
        later = tuple(_upright(frame, orientation) for frame in _later_frames(image))
    upright = _upright(first, orientation)
    if orientation >= 5:
        width_px, height_px = height_px, width_px
    return Picture(upright, width_px, height_px, metadata, later)


def _later_frames(image: Image.Image) -> Iterator[Image.Image]:
    """The middle and the last frame of an animation, as far as it can be read and within `ANIMATION_PIXEL_LIMIT`."""
    reachable = ANIMATION_PIXEL_LIMIT // max(1, image.width * image.height)
    with suppress(Exception):  # a broken frame loses itself and those after it; the first one is kept
        count = min(getattr(image, "n_frames", 1), reachable)
        for index in sorted({count // 2, count - 1}):
            if index > 0:
                image.seek(index)
                image.load()
                yield to_rgb(image).copy()


def _reduced(image: Image.Image, side_px: int) -> Image.Image:
    """A very large picture averaged down by a whole factor, to four times the model's input: it saves memory."""
    factor = min(image.size) // (4 * side_px)
    return image.reduce(factor) if image.width * image.height > _LARGE_PIXELS and factor > 1 else image


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    transpose = _TRANSPOSE.get(orientation)
    return image if transpose is None else image.transpose(transpose)


_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> the operation that brings the picture upright


def _too_large(what: str, pixel_limit: int) -> str:
    return f"too large: {what}, the limit is {pixel_limit / 1e6:.0f} million"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
