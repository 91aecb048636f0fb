"""Which backend serves: numpy over a file, and a GPU through FAISS where there is one. Both read the same files.

In: what is installed. Out: an index, new or from a file. FAISS takes a tenth of a second to import and is imported
only where an NVIDIA driver is there and so much is asked that a copy on the GPU pays, or where lists are trained.
Next: `indexer/generations.py`, which keeps index files.
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
from indexer.vectors.gpu_index import GpuIndex
from indexer.vectors.half_index import HalfIndex
from indexer.vectors.mirrors import Gpu, gpu_count

Device = Literal["auto", "cpu", "cuda"] | Gpu  # a `Gpu` says how a GPU is used, where there is one
Backend = Literal["numpy", "faiss-gpu"]

log = logging.getLogger(__name__)

DRIVER: Final = Path("/proc/driver/nvidia/version")
HINT: Final = (
    "FAISS is not installed; numpy finds the same, but trains a large library's lists more slowly and uses no GPU: "
    "pip install 'mmsearch[cpu]', or 'mmsearch[gpu]' for an NVIDIA GPU"
)


def has_faiss() -> bool:
    """Whether a FAISS package is installed."""
    return importlib.util.find_spec("faiss") is not None


def backend(device: Device = "auto") -> Backend:
    """What searches use on this machine, once many are asked."""
    return "faiss-gpu" if _gpu_for(device) is not None and gpu_count() else "numpy"


def _gpu_for(device: Device) -> Gpu | None:
    """How a GPU is used, None where none is wanted or none is likely there; FAISS is asked when it is needed."""
    if device == "cpu" or not has_faiss():
        return None
    if isinstance(device, Gpu):
        return device if DRIVER.exists() or not device.after else None
    return Gpu(after=0) if device == "cuda" else Gpu() if DRIVER.exists() else None


@functools.cache
def _hint_once() -> None:
    log.warning(HINT)


def new_index(dim: int, device: Device = "auto") -> VectorIndex:
    """An empty index for vectors of length `dim`."""
    if not has_faiss():
        _hint_once()
    gpu = _gpu_for(device)
    return FileIndex(dim) if gpu is None else GpuIndex(dim, gpu=gpu)


def load_index(path: Path, device: Device = "auto") -> VectorIndex:
    """The index in a file. Raises: LibraryCorrupt."""
    if not has_faiss():
        _hint_once()
    if path.suffix == ExactIndex.suffix:
        return ExactIndex.load(path)
    gpu = _gpu_for(device)
    if gpu is not None:
        return GpuIndex.load(path, gpu)
    return HalfIndex.load(path) if has_faiss() else FileIndex.load(path)


def suffix_of(index: VectorIndex) -> str:
    """The file name's ending for this index."""
    return str(getattr(index, "suffix", ".index"))
