"""What a file is: what its name says it is used for (its role), and what its first bytes say (its kind).

In: a file's name; the first bytes of a file. Out: its `Role`: a picture or video, a text, a sidecar, a table of
captions, or nothing; its `Kind`, and the extra that is needed to read it. A name may lie, and a decoder gets only files
of its own format. Next: `scan.py`, which goes by names; `decoding/decode.py`, which goes by kinds.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from typing import Final, Literal

from indexer.base.types import Modality

Kind = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heif", "raw", "video"]
Role = Modality | Literal["captions", "sidecar"]

IMAGE_SUFFIXES: Final = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
        ".hif", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef",
        ".srw", ".x3f", ".mrw", ".erf", ".3fr", ".iiq", ".kdc", ".dcr",
    }
)  # fmt: skip
VIDEO_SUFFIXES: Final = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".3gp", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"}
)
TEXT_SUFFIXES: Final = frozenset({".txt", ".md"})
SIDECAR_SUFFIXES: Final = frozenset({".json", ".xmp"})
CAPTIONS_NAME: Final = "captions.csv"

HEAD_BYTES: Final = 64
# read by libtiff, libheif, AV1 decoders and FFmpeg: large libraries for rare files, so they run in the sandbox
RISKY: Final[frozenset[Kind]] = frozenset({"tiff", "avif", "heif", "raw", "video"})
_PILLOW: Final[tuple[Kind, ...]] = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heif")
# Pillow's own names; JPEG reads MPO, too, and HEIF is there once `pillow_heif` has registered it
PILLOW_FORMATS: Final = {kind: (kind.upper(),) for kind in _PILLOW}
ANIMATED: Final[frozenset[Kind]] = frozenset({"gif", "webp", "png", "avif"})

_EXTRAS: Final[dict[str, str]] = {"heif": "pillow_heif", "video": "av"}  # extra of pyproject.toml -> its module
_HEIF_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_STILL_BRANDS: Final = frozenset({b"mif1", b"msf1", b"miaf"})  # a picture; the other brands name its codec
_MAGIC: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"IIRO", "raw"),  # Olympus
    (b"IIRS", "raw"),
    (b"MMOR", "raw"),
    (b"IIU\0", "raw"),  # Panasonic
    (b"FUJIFILMCCD-RAW", "raw"),
    (b"FOVb", "raw"),  # Sigma
    (b"\0MRM", "raw"),  # Minolta
    (b"II\x1a\0\0\0HEAPCCDR", "raw"),  # Canon, before CR2
    (b"\x1a\x45\xdf\xa3", "video"),  # Matroska, WebM
)
_ROLES: Final[dict[str, Role]] = {
    **{suffix[1:]: "image" for suffix in IMAGE_SUFFIXES},
    **{suffix[1:]: "text" for suffix in TEXT_SUFFIXES},
    **{suffix[1:]: "sidecar" for suffix in SIDECAR_SUFFIXES},
}  # by the suffix in lower case, without the dot


def role_of(name: str) -> Role | None:
    """The role of a file with this name; None for a file that is not indexed."""
    stem, _, ending = name.rpartition(".")  # os.path.splitext would take as long as the stat of the file
    role = _ROLES.get(ending.lower()) if stem else None
    if role is not None:
        return role
    if name.lower() == CAPTIONS_NAME:
        return "captions"
    return "image" if stem and f".{ending.lower()}" in VIDEO_SUFFIXES and _reads_video() else None


@cache
def _reads_video() -> bool:
    """Without the extra, videos are ignored: a skip for each of them would tell the user nothing."""
    return has_extra("video")


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file that begins with `head` (`HEAD_BYTES` are enough), or None."""
    if head[:4] == b"RIFF":
        return {b"WEBP": "webp", b"AVI ": "video"}.get(head[8:12])  # type: ignore[return-value]
    if head[4:8] == b"ftyp":
        return _kind_of_brands(head)
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):  # QuickTime before brands
        return "video"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def missing_extra(kind: Kind) -> str | None:
    """The extra to install before files of this kind can be read; None when they can."""
    return kind if kind in _EXTRAS and not has_extra(kind) else None


def needs(kind: Kind) -> str:
    """The reason of a skip for want of an extra; `is_remedied` knows it again."""
    return f"{kind.upper() if kind == 'heif' else 'video'} needs an extra: pip install 'mmsearch[{kind}]'"


def has_extra(name: str) -> bool:
    """Whether the modules of an extra are installed here."""
    return importlib.util.find_spec(_EXTRAS[name]) is not None


def is_remedied(reason: str) -> bool:
    """Whether a file was skipped for want of an extra that is here by now: it is worth another try."""
    found = re.search(r"'mmsearch\[(\w+)\]'$", reason)
    return found is not None and found[1] in _EXTRAS and has_extra(found[1])


def _kind_of_brands(head: bytes) -> Kind:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    major = head[8:12]
    brands = {major, *(head[at : at + 4] for at in range(16, size - 3, 4))}
    if major == b"crx ":
        return "raw"  # Canon CR3
    if major in _HEIF_BRANDS or (major in _STILL_BRANDS and not brands & {b"avif", b"avis"}):
        return "heif"
    return "avif" if brands & {b"avif", b"avis"} else "video"
