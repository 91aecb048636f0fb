"""Which index serves: numpy, FAISS on the CPU, a copy of it on a GPU.

In: rows, FAISS's index of them and its facts, what is installed. Out: an index. FAISS takes 0.11 s to import, a third
of a cold search, and numpy searches a few thousand vectors in less than a millisecond: so a small library does without.
Next: `indexer/search/index_files.py`, which keeps index files.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from pathlib import Path
from typing import Final, Literal

from indexer.base.types import EXACT_SEARCH, IndexFacts
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_index import FaissIndex, Probing
from indexer.vectors.gpu import Gpu, GpuIndex, gpu_count
from indexer.vectors.protocol import VectorIndex
from indexer.vectors.rows import Rows

Device = Literal["auto", "cpu", "cuda"] | Gpu  # a `Gpu` says how a GPU is used, where there is one
Backend = Literal["numpy", "faiss", "faiss-gpu"]

log = logging.getLogger(__name__)

FLAT_FROM: Final = 4096  # vectors; below, numpy looks at everything in less than a millisecond
FLAT_BYTES: Final = 1 << 30  # of a flat index in memory; beyond, numpy reads the mapped rows block by block
DRIVER: Final = Path("/proc/driver/nvidia/version")
HINT: Final = (
    "FAISS is not installed; numpy searches everything instead, which takes long in a large library, and uses no GPU: "
    "pip install 'mmsearch[cpu]', or 'mmsearch[gpu]' for an NVIDIA GPU"
)


def has_faiss() -> bool:
    """Whether a FAISS package is installed."""
    return importlib.util.find_spec("faiss") is not None


def backend(device: Device = "auto") -> Backend:
    """What searches of a large library use on this machine, once many are asked."""
    if not has_faiss():
        return "numpy"
    return "faiss-gpu" if _gpu_for(device) is not None and gpu_count() else "faiss"


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


def index_over(
    rows: Rows, device: Device = "auto", facts: IndexFacts = EXACT_SEARCH, content: bytes | None = None
) -> VectorIndex:
    """What searches `rows`: by FAISS's index, as it was written by `FaissIndex.write`, where there is one.

    Raises: LibraryCorrupt.
    """
    gpu, index = _gpu_for(device), None
    if not has_faiss():
        _hint_once()
    elif content is not None:
        index = FaissIndex.load(content, rows, Probing(facts.nprobe, facts.depth))
    elif len(rows) >= FLAT_FROM and 2 * len(rows) * rows.dim <= FLAT_BYTES and gpu is None:
        index = FaissIndex(rows)
    cpu = ExactIndex(rows) if index is None else index
    return cpu if gpu is None else GpuIndex(cpu, gpu)
