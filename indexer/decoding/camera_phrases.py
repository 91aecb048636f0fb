"""Choose which text in a picture's metadata is a caption: what a person wrote, not a default of a camera or a program.

In: a `Metadata` and the file's name. Out: captions. A camera's standard phrase, fused into ten thousand photos, would
make them all alike. Next: `ingest/captions.py`, which stores them.
"""

from __future__ import annotations

import re
from typing import Final

from indexer.decoding.metadata import Metadata

_PHRASES: Final = frozenset(
    {
        "olympus digital camera", "sony dsc", "konica minolta digital camera", "minolta digital camera", "dcim",
        "samsung digital camera", "samsung camera pictures", "nikon digital camera", "kodak digital still camera",
        "digital camera", "digital still camera", "a digital camera", "exif_jpeg_picture", "exif jpeg picture",
        "jpeg_picture", "casio computer co., ltd", "binary comment", "user comments", "image description", "ascii",
        "default", "untitled", "title", "description", "caption", "photo", "picture", "image", "screenshot",
        "processed with vsco", "lead technologies inc. v1.01", "acd systems digital imaging", "file source",
        "created with gimp", "file written by adobe photoshop", "my beautiful picture", "new image", "null", "none",
    }
)  # fmt: skip
_PATTERNS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"[a-z]{0,5}[-_]?\d[-_\d().:~ ]*",  # DSC00017, P1010001, 2019-07-06 12:00
        r"(img|image|photo|picture|foto|bild|mvimg|vid|video)[\W_]*\d[\d\W_]*",
        r"screenshot[\W_]*\d[\w\W]*",
        r"[0-9a-f]{8}[-0-9a-f]{8,}",  # a hash, a UUID
        r"(cof|hdr|ptr|rbt|dav|edf|mde|sdr|vhdr|rhdr|btf|fbt|mtr|qrf|oznor\w*|oplus_\d+)([_;,]\w*)*",  # phones
        r"<[^<>]*>|\[[^\[\]]*\]",  # <Digimax S500 / Kenox S500>, [Digital Camera user]
        r"(created|edited|processed|optimi[sz]ed|captured) (with|by|using) .*",
        r"creator: gd-jpeg.*|copyright.*|\(c\).*|©.*",
        r"https?://\S+|[\w.+-]+@[\w.-]+",
    )
)


def captions_of(metadata: Metadata, file_name: str) -> list[str]:
    """The captions in the metadata, each once: the title, the description, the keywords as one line."""
    stem = file_name.rpartition(".")[0] or file_name
    found: dict[str, str] = {}
    for text in (metadata.title, metadata.description):
        if text is not None and is_personal(text) and text.casefold() not in (stem.casefold(), file_name.casefold()):
            found.setdefault(text.casefold(), text)
    words = [word for word in metadata.keywords if any(c.isalpha() for c in word) and word.casefold() not in _PHRASES]
    if words:
        line = ", ".join(words)
        found.setdefault(line.casefold(), line)
    return list(found.values())


def is_personal(text: str) -> bool:
    """Whether the text is a person's, and not a number, a default phrase or a link."""
    plain = text.strip().casefold()
    if sum(c.isalpha() for c in plain) < 2 and not any(c > "\u2e80" for c in plain):  # one CJK character is a word
        return False
    return plain not in _PHRASES and not any(pattern.fullmatch(plain) for pattern in _PATTERNS)
