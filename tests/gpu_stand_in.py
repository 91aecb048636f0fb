"""The GPU's side of FAISS on a machine without one: the names of the GPU build, over CPU indexes, with its limits.

In: the CPU build of `faiss`. Out, while `installed()` lasts: `StandardGpuResources`, `GpuIndexFlatIP`,
`index_cpu_to_gpu`, `GpuIndexCagra` and their options, as gpu_wrappers.py and swigfaiss.py of faiss-gpu-cu12 1.14 have
them. More than 2,048 results or lists, a filter, or more vectors than there is memory for end in the RuntimeError
that FAISS raises. What it cannot show: speed, and the rounding of a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np

LIMIT = 2048


class Resources:
    """`StandardGpuResources`; `memory_bytes` is what all indexes of one may take, `calls` what was asked of them."""

    memory_bytes = 1 << 40
    calls: list[tuple[str, int, int]] = []  # noqa: RUF012 - cleared by `installed`

    def __init__(self) -> None:
        self._taken = 0

    def take(self, size: int) -> None:
        self._taken += size
        if self._taken > self.memory_bytes:
            raise RuntimeError(f"Error: alloc fail: {size} bytes (cudaMalloc error out of memory [2])")


class GpuIndex:
    """Any index on the "GPU"."""

    def __init__(self, name: str, resources: Resources, index: Any, row_bytes: int) -> None:
        self._name, self._resources, self._index, self._row_bytes = name, resources, index, row_bytes
        resources.take(row_bytes * index.ntotal)

    @property
    def ntotal(self) -> int:
        return int(self._index.ntotal)

    def add(self, x: np.ndarray) -> None:
        self._resources.take(self._row_bytes * len(x))
        self._index.add(x)

    def add_with_ids(self, x: np.ndarray, ids: np.ndarray) -> None:
        if isinstance(self._index, faiss.IndexFlat):
            raise RuntimeError("add_with_ids not implemented for this type of index")
        self._resources.take(self._row_bytes * len(x))
        self._index.add_with_ids(x, ids)

    def search(self, x: np.ndarray, k: int, *, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
        probes = getattr(params, "nprobe", 0)
        if k > LIMIT or probes > LIMIT:
            raise RuntimeError(f"GPU index only supports min/max-K selection up to {LIMIT}, not {max(k, probes)}")
        if getattr(params, "sel", None) is not None or (params is not None and not probes):
            raise RuntimeError("GPU index: unhandled SearchParameters")
        Resources.calls.append((self._name, len(x), k))
        return self._index.search(x, k, params=params)  # type: ignore[no-any-return]


class Options:
    """`GpuIndexFlatConfig`, `GpuClonerOptions`, `GpuIndexCagraConfig`, `SearchParametersCagra`: fields to set."""

    useFloat16 = False  # noqa: N815 - as FAISS has it
    itopk_size = 64


class Cagra(GpuIndex):
    """`GpuIndexCagra`: trained with all rows at once; returns a row twice and a place that is none now and then."""

    def __init__(self, resources: Resources, dim: int, metric: int, config: Options) -> None:
        super().__init__("cagra", resources, faiss.IndexFlatIP(dim), 4 * dim)

    def train(self, x: np.ndarray) -> None:
        self.add(x)

    def search(self, x: np.ndarray, k: int, *, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
        assert k <= params.itopk_size <= 512
        scores, ids = super().search(x, k)
        if k > 4:
            ids[:, 4:], scores[:, 4:] = ids[:, 3:-1].copy(), scores[:, 3:-1].copy()
            ids[:, -1] = np.iinfo(np.int64).max
        return scores, ids


def flat(resources: Resources, dim: int, config: Options) -> GpuIndex:
    return GpuIndex("flat", resources, faiss.IndexFlatIP(dim), 4 * dim)


def to_gpu(resources: Resources, device: int, index: Any, options: Options | None = None) -> GpuIndex:
    copy = faiss.clone_index(index)
    if isinstance(copy, faiss.IndexIVFPQ):
        codes = copy.pq.M * 256
        if 4 * codes > 49152 and not (options and options.useFloat16):
            raise RuntimeError("Device has 49152 bytes of shared memory; consider useFloat16LookupTables")
        return GpuIndex("pq", resources, copy, copy.pq.M + 8)
    return GpuIndex("lists", resources, copy, 4 * copy.d + 8)


NAMES: dict[str, Any] = {
    "StandardGpuResources": Resources,
    "GpuIndexFlatIP": flat,
    "GpuIndexFlatConfig": Options,
    "GpuClonerOptions": Options,
    "index_cpu_to_gpu": to_gpu,
    "get_num_gpus": lambda: 1,
}
CUVS: dict[str, Any] = {
    "GpuIndexCagra": Cagra,
    "GpuIndexCagraConfig": Options,
    "SearchParametersCagra": Options,
}


@contextmanager
def installed(*, cuvs: bool = False, memory_bytes: int = 1 << 40) -> Iterator[list[tuple[str, int, int]]]:
    """`faiss` has a GPU: `cuvs` as built with cuVS. Yields what is asked of it: kind of index, queries, results."""
    names = {**NAMES, **(CUVS if cuvs else {})}
    before = {name: vars(faiss).get(name) for name in names}
    Resources.memory_bytes, Resources.calls = memory_bytes, []
    vars(faiss).update(names)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # a GPU needs none, and on a busy machine they wait for each other
    try:
        yield Resources.calls
    finally:
        faiss.omp_set_num_threads(threads)
        for name, old in before.items():
            if old is None:
                vars(faiss).pop(name)
            else:
                setattr(faiss, name, old)
