"""Libraries written by earlier versions with the fake encoder, kept as they were; `make.py` says how they were made.

In: one of `LIBRARIES`. Out: a folder with `library` and `photos`. Each holds 24 pictures in eight colours, two texts,
four captions, one broken file and one picture that is gone; those with lists hold more pictures and texts.
They were indexed at `RECORDED`, where there is nothing now.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RECORDED: Final = Path("/tmp/frozen/photos")


@dataclass(frozen=True)
class Frozen:
    """An archive, and how many live pictures and texts are in it."""

    name: str
    images: int = 24
    texts: int = 2

    def unpack(self, folder: Path) -> Path:
        """Unpack into `folder`, which then holds `library` and `photos`."""
        with tarfile.open(Path(__file__).parent / f"{self.name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        return folder


LIBRARIES: Final = (
    Frozen("library-schema-0001"),
    Frozen("library-schema-0002"),
    Frozen("library-schema-0002-lists", images=164, texts=72),  # an index file of 31 lists, float32
    Frozen("library-schema-0002-lists-of-bytes", images=164, texts=72),  # the same in one byte per number
)
