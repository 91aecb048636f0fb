"""Exact search with FAISS, for a GPU: the state is on the CPU, the GPU only ever holds a copy of it.

In: vectors under ids. Out: the same neighbours as `exact.py`. The state is an `IndexIDMap2` over an `IndexFlatIP` in
memory, which is what `save` writes. Next: `choose.py`, which picks a backend.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from indexer.types import Float32Array
from indexer.vectors.base import BoolArray, Int64Array, checked_ids, normalised, rank
from indexer.vectors.layout import IndexFile

faiss: Any = importlib.import_module("faiss")  # its stubs and its Python face disagree, and differ between builds

Device = Literal["auto", "cpu", "cuda"]
GPU_DEPTH: Final = 2048  # the most results a GPU search returns


def gpu_count() -> int:
    """GPUs this build of FAISS can use: 0 for a CPU build, and for a GPU build on a machine without one."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


class FaissIndex:
    """`device` is "auto" (a GPU if there is one), "cpu" or "cuda"."""

    suffix = ".faiss"

    def __init__(self, dim: int, device: Device = "auto") -> None:
        self.dim = dim
        self.device = device
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        self._mirror: Any = None  # the copy on the GPU, made by the first search after a change
        self._resources: Any = None

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def ids(self) -> Int64Array:
        """The ids, int64 `[n]`, in stored order."""
        return np.asarray(faiss.vector_to_array(self._index.id_map), np.int64)

    def add(self, ids: Int64Array, vectors: Float32Array) -> None:
        """Add or replace, see `VectorIndex`."""
        vectors = normalised(vectors, self.dim)
        ids = checked_ids(ids, len(vectors))
        self.remove(ids)
        self._index.add_with_ids(vectors, ids)
        self._mirror = None

    def remove(self, ids: Int64Array) -> int:
        """Take ids out, see `VectorIndex`."""
        present = np.intersect1d(ids, self.ids())
        if not len(present):
            return 0
        self._mirror = None
        return int(self._index.remove_ids(faiss.IDSelectorBatch(present)))

    def search(
        self, queries: Float32Array, k: int, allowed: Int64Array | None = None
    ) -> tuple[Int64Array, Float32Array]:
        """The `k` nearest, see `VectorIndex`."""
        queries = normalised(queries, self.dim)
        ids = self.ids()
        mask = None if allowed is None else np.isin(ids, allowed)
        available = len(ids) if mask is None else int(mask.sum())

        def fetch(part: Float32Array, count: int) -> tuple[Int64Array, Float32Array]:
            if mask is not None:
                return self._fetch_on_gpu_within(part, count, mask) or self._fetch_on_cpu(part, count, mask)
            if self._uses_gpu() and count <= GPU_DEPTH:
                scores, positions = self._on_gpu().search(part, count)
                return positions, scores
            return self._fetch_on_cpu(part, count, None)

        return rank(queries, k, available, ids, self.vectors().__getitem__, fetch)

    def save(self, path: Path) -> None:
        """FAISS's own format."""
        faiss.write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path, device: Device = "auto") -> FaissIndex:
        """Read what `save` wrote. Raises: LibraryCorrupt."""
        file = IndexFile.open(path)  # not read_index: a file of any number of lists is searched whole here
        loaded = cls(file.dim, device)
        ids = file.ids()
        for number, first in enumerate(file.first.tolist()):
            rows = file.rows(number)
            loaded._index.add_with_ids(rows, ids[first : first + len(rows)])
        return loaded

    def _flat(self) -> Any:
        return faiss.downcast_index(self._index.index)

    def vectors(self) -> Float32Array:
        """The stored unit vectors, `[n, d]`, without a copy; valid until the next change."""
        if not len(self):
            return np.empty((0, self.dim), np.float32)
        flat: Float32Array = faiss.rev_swig_ptr(self._flat().get_xb(), len(self) * self.dim)
        return flat.reshape(len(self), self.dim)

    def _fetch_on_cpu(self, part: Float32Array, count: int, mask: BoolArray | None) -> tuple[Int64Array, Float32Array]:
        if mask is None:
            scores, positions = self._flat().search(part, count)
        else:
            selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
            scores, positions = self._flat().search(part, count, params=faiss.SearchParameters(sel=selector))
        return positions, scores

    def _uses_gpu(self) -> bool:
        return self.device == "cuda" or (self.device == "auto" and gpu_count() > 0)

    def _on_gpu(self) -> Any:
        if self._mirror is None:
            self._resources = self._resources or faiss.StandardGpuResources()
            self._mirror = faiss.index_cpu_to_gpu(self._resources, 0, self._flat())
        return self._mirror

    def _fetch_on_gpu_within(
        self, part: Float32Array, count: int, mask: BoolArray
    ) -> tuple[Int64Array, Float32Array] | None:
        """Flat search on a GPU knows no filter: fetch deep and keep what passes; None where that is not deep enough."""
        depth = min(len(mask), GPU_DEPTH)
        if not self._uses_gpu() or count * len(mask) > depth * max(1, int(mask.sum())):
            return None
        scores, positions = self._on_gpu().search(part, depth)
        passes = mask[positions]  # [m, depth]
        if int(passes.sum(axis=1).min()) < count:
            return None
        order = np.argsort(~passes, axis=1, kind="stable")[:, :count]  # passing ones first, still by score
        return np.take_along_axis(positions, order, axis=1), np.take_along_axis(scores, order, axis=1)
