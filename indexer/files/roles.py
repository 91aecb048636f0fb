"""Choose by its name what a file is used for: a picture or video, a text, a sidecar, a table of captions, or nothing.

In: a file's name. Out: its `Role`. What the file really is, its first bytes tell later (`kinds.py`). Next: `scan.py`.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal

from indexer.base.types import Modality
from indexer.files.kinds import has_extra

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

Role = Modality | Literal["captions", "sidecar"]

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
