"""From the bytes of one file to upright RGB pixels or to a string; whatever goes wrong is a `DecodeError`, a reason.

In: an open file. Out: `Picture` or `str`. Files here are hostile until proven otherwise: a file is given only to the
decoder of what it begins with, sizes are read from the header before any pixel is, scans and frames are counted, a
library's exception is a skip. What a library's crash would cost is `guard.py`'s part. Next: `pipeline.py`.
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

from indexer.base.errors import DecodeError
from indexer.decoding import raw
from indexer.decoding.colour import to_rgb
from indexer.decoding.metadata import Metadata, metadata_of
from indexer.files.kinds import ANIMATED, HEAD_BYTES, PILLOW_FORMATS, Kind, kind_of, missing_extra, needs

PIXEL_LIMIT: Final = 178_956_970  # 2/3 GiB of RGB: where Pillow, too, takes a picture for a decompression bomb
SCAN_LIMIT: Final = 500  # of a progressive JPEG, which has ten; each costs a pass over all pixels, and hardly a byte
FRAMES_PIXELS: Final = 100_000_000  # of an animation that are decoded to reach its last frame: about two seconds
TEXT_LIMIT_BYTES: Final = 64 * 1024  # more of a text than any text encoder reads
EXCERPT_CHARS: Final = 240
NOT_A_PICTURE: Final = "not a picture (its content is none of JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, camera RAW)"

_TURNED_BY_DECODER: Final[frozenset[Kind]] = frozenset({"tiff", "heif"})
_LARGE_PIXELS: Final = 40_000_000
_one_large_picture = threading.Semaphore(1)  # two pictures of 178 MP at once would take more memory than all the rest
_heif_registered = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright RGB pixels, perhaps scaled down, and what the file says of itself; sizes are the whole picture's.

    `image` is the first frame of an animation, `later` its middle and its last, where there are any; of a video,
    keyframes.
    """

    image: Image.Image
    width_px: int
    height_px: int
    metadata: Metadata = field(default_factory=Metadata)
    later: tuple[Image.Image, ...] = ()
    times_s: tuple[float, ...] = ()  # of a video: of `image` and each of `later`

    def without_pixels(self) -> Picture:
        """The same, holding no memory for the pixels."""
        return replace(self, image=Image.new("RGB", (1, 1)), later=())


def decode_image(file: BinaryIO, *, side_px: int, pixel_limit: int = PIXEL_LIMIT) -> Picture:
    """Decode one picture for a model that looks at `side_px`; JPEGs are scaled while decoding to about twice that.

    Raises: DecodeError, one line, for anything that is not a complete picture within `pixel_limit`.
    """
    with _one_line_errors(pixel_limit):
        kind, opened, around = _source(file)
        if kind == "video":
            return _of_video(file, side_px, pixel_limit)
        with Image.open(opened, formats=PILLOW_FORMATS[kind]) as image:
            width_px, height_px = image.size
            if width_px * height_px > pixel_limit:
                raise DecodeError(_too_large(f"{width_px:,} x {height_px:,} pixels", pixel_limit))
            if image.info.get("progressive"):
                _check_scans(opened)
            if width_px * height_px > _LARGE_PIXELS and image.format not in ("JPEG", "MPO"):
                with _one_large_picture:
                    return _picture(image, kind, side_px, around)
            return _picture(image, kind, side_px, around)


def read_metadata(file: BinaryIO) -> Metadata:
    """What a picture says of itself, as `decode_image` has it, without decoding it where the format allows.

    Raises: DecodeError.
    """
    with _one_line_errors(PIXEL_LIMIT):
        kind, opened, around = _source(file)
        if kind == "video":
            return _of_video(file, 1, PIXEL_LIMIT).metadata
        with Image.open(opened, formats=PILLOW_FORMATS[kind]) as image:
            if kind == "png" and image.width * image.height <= _LARGE_PIXELS:
                image.load()  # a PNG may say it after its pixels
            return metadata_of(image, around)[1]


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


def _source(file: BinaryIO) -> tuple[Kind, BinaryIO, Image.Exif | None]:
    """The kind of a file, what to open, and the EXIF around it: a RAW file stands for the JPEG inside.

    Raises: DecodeError when nothing here reads such a file.
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


def _of_video(file: BinaryIO, side_px: int, pixel_limit: int) -> Picture:
    from indexer.decoding.video import keyframes

    frames, (width_px, height_px), said = keyframes(file, side_px=side_px, pixel_limit=pixel_limit)
    images, times_s = [one.image for one in frames], tuple(one.time_s for one in frames)
    return Picture(images[0], width_px, height_px, said, tuple(images[1:]), times_s)


def _register_heif() -> None:
    with _heif_registered:
        if "HEIF" not in Image.OPEN:
            from pillow_heif import register_heif_opener

            register_heif_opener(thumbnails=False)


@contextmanager
def _one_line_errors(pixel_limit: int) -> Iterator[None]:
    try:
        yield
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError("broken picture (its header cannot be read)") from error
    except Image.DecompressionBombError as error:
        found = re.search(r"\d{4,}", str(error))  # Pillow opens no such file
        what = f"{int(found[0]):,} pixels" if found else "the picture"
        raise DecodeError(_too_large(what, pixel_limit)) from error
    except Exception as error:  # decoders fail on broken input with any exception there is, and no file may end a run
        raise DecodeError(f"broken picture ({_one_line(error)})") from error


def _check_scans(file: BinaryIO) -> None:
    """Raise where a progressive JPEG is a bomb of time. The file is read from its beginning and left where it was."""
    here = file.tell()
    file.seek(0)
    scans, tail = 0, b""
    while block := file.read(1 << 20):
        scans += (tail + block).count(b"\xff\xda")  # in the scans' own data FF is followed by 00
        tail = block[-1:]
    file.seek(here)
    if scans > SCAN_LIMIT:
        raise DecodeError(f"a JPEG of {scans:,} scans, the limit is {SCAN_LIMIT}")


def _picture(image: Image.Image, kind: Kind, side_px: int, around: Image.Exif | None) -> Picture:
    width_px, height_px = image.size
    orientation, said = metadata_of(image, around)
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (2 * side_px, 2 * side_px))  # the DCT scale that leaves the shorter side at least this long
    image.load()
    if kind in _TURNED_BY_DECODER:
        orientation, (width_px, height_px) = 1, image.size
    first = _reduced(to_rgb(image), side_px)
    later: tuple[Image.Image, ...] = ()
    if kind in ANIMATED:
        first = first.copy() if first is image else first  # the next frame would be painted over it
        later = tuple(_turned(frame, orientation) for frame in _later(image))
    upright = _turned(first, orientation)
    if orientation >= 5:
        width_px, height_px = height_px, width_px
    return Picture(upright, width_px, height_px, said, later)


def _later(image: Image.Image) -> Iterator[Image.Image]:
    """The middle and the last frame of an animation, as far as it can be read and within `FRAMES_PIXELS`."""
    reachable = FRAMES_PIXELS // max(1, image.width * image.height)
    with suppress(Exception):  # a broken frame costs itself and what follows; the first one stands
        count = min(getattr(image, "n_frames", 1), reachable)
        for index in sorted({count // 2, count - 1}):
            if index > 0:
                image.seek(index)
                image.load()
                yield to_rgb(image).copy()


def _reduced(image: Image.Image, side_px: int) -> Image.Image:
    """A very large picture by whole-numbered averages, to four times what the model looks at: less memory from here."""
    factor = min(image.size) // (4 * side_px)
    return image.reduce(factor) if image.width * image.height > _LARGE_PIXELS and factor > 1 else image


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what brings it upright


def _too_large(what: str, pixel_limit: int) -> str:
    return f"too large: {what}, the limit is {pixel_limit / 1e6:.0f} million"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
