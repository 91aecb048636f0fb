"""Which backend serves: a GPU through FAISS where there is one, else numpy over a file. Both read the same files.

In: what is installed. Out: an index, new or from a file. FAISS takes a tenth of a second to import and is imported
only where an NVIDIA driver is there, or lists are trained. Next: `indexer/generations.py`, which keeps index files.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from pathlib import Path
from typing import Final, Literal

from indexer.vectors.base import VectorIndex
from indexer.vectors.exact import ExactIndex
from indexer.vectors.file_index import FileIndex

Device = Literal["auto", "cpu", "cuda"]
Backend = Literal["exact", "faiss-gpu"]

log = logging.getLogger(__name__)

DRIVER: Final = Path("/proc/driver/nvidia/version")
HINT: Final = (
    "FAISS is not installed, searching with numpy: for large libraries pip install 'mmsearch[cpu]', "
    "or 'mmsearch[gpu]' for an NVIDIA GPU"
)


def has_faiss() -> bool:
    """Whether a FAISS package is installed."""
    return importlib.util.find_spec("faiss") is not None


def backend(device: Device = "auto") -> Backend:
    """What a search on this machine uses."""
    if device == "cpu" or not has_faiss() or (device == "auto" and not DRIVER.exists()):
        return "exact"
    from indexer.vectors.faiss_index import gpu_count

    return "faiss-gpu" if gpu_count() else "exact"


@functools.cache
def _hint_once() -> None:
    log.warning(HINT)


def new_index(dim: int, device: Device = "auto") -> VectorIndex:
    """An empty index for vectors of length `dim`."""
    if not has_faiss():
        _hint_once()
    if backend(device) == "faiss-gpu":
        from indexer.vectors.faiss_index import FaissIndex

        return FaissIndex(dim, device)
    return FileIndex(dim)


def load_index(path: Path, device: Device = "auto") -> VectorIndex:
    """The index in a file. Raises: LibraryCorrupt."""
    if not has_faiss():
        _hint_once()
    if path.suffix == ExactIndex.suffix:
        return ExactIndex.load(path)
    if backend(device) == "faiss-gpu":
        from indexer.vectors.faiss_index import FaissIndex

        return FaissIndex.load(path, device)
    return FileIndex.load(path)


def suffix_of(index: VectorIndex) -> str:
    """The file name's ending for this index."""
    return str(getattr(index, "suffix", ".index"))
