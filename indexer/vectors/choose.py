"""Which backend serves: FAISS where one of its packages is installed, else numpy. Both answer the same.

In: what is installed. Out: an index, new or from a file. FAISS is imported by the first index, not by this file.
Next: `indexer/generations.py`, which keeps index files.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from pathlib import Path
from typing import Final, Literal

from indexer.errors import LibraryCorrupt
from indexer.vectors.base import VectorIndex
from indexer.vectors.exact import ExactIndex

Device = Literal["auto", "cpu", "cuda"]
Backend = Literal["exact", "faiss-cpu", "faiss-gpu"]

log = logging.getLogger(__name__)

HINT: Final = (
    "FAISS is not installed, searching with numpy: for large libraries pip install 'mmsearch[cpu]', "
    "or 'mmsearch[gpu]' for an NVIDIA GPU"
)


def has_faiss() -> bool:
    """Whether a FAISS package is installed."""
    return importlib.util.find_spec("faiss") is not None


def backend(device: Device = "auto") -> Backend:
    """What a search on this machine uses; where it is "exact", the first index says so once, with `HINT`."""
    if not has_faiss():
        return "exact"
    from indexer.vectors.faiss_index import gpu_count

    return "faiss-gpu" if device != "cpu" and gpu_count() else "faiss-cpu"


@functools.cache
def _hint_once() -> None:
    log.warning(HINT)


def new_index(dim: int, device: Device = "auto") -> VectorIndex:
    """An empty index for vectors of length `dim`."""
    if not has_faiss():
        _hint_once()
        return ExactIndex(dim)
    from indexer.vectors.faiss_index import FaissIndex

    return FaissIndex(dim, device)


def load_index(path: Path, device: Device = "auto") -> VectorIndex:
    """The index in a file, by its suffix. Raises: LibraryCorrupt, also when the file needs FAISS and there is none."""
    if path.suffix == ExactIndex.suffix:
        if not has_faiss():
            _hint_once()
        return ExactIndex.load(path)
    if not has_faiss():
        raise LibraryCorrupt(f"{path} needs FAISS to be read; pip install 'mmsearch[cpu]' or 'mmsearch[gpu]'")
    from indexer.vectors.faiss_index import FaissIndex

    return FaissIndex.load(path, device)


def suffix_of(index: VectorIndex) -> str:
    """The file name's ending for this index."""
    return str(getattr(index, "suffix", ".index"))
