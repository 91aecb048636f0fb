"""What of an index lies on a GPU: a copy of its vectors, in the form that its number and the GPU's memory suggest.

In: rows by their positions, and where the index file has lists the list of each. Out: a `Mirror`, which finds
candidates; their scores are taken anew from the rows on the CPU, so a mirror may be inexact but never decides a rank.
FAISS's limits: 2,048 results and 2,048 lists a search, no filter. Next: `gpu_index.py`, which asks it.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from indexer.base.types import Float32Array
from indexer.vectors.base import Gather, Int64Array

Kind = Literal["flat", "lists", "pq", "cagra"]

DEPTH: Final = 2048  # results of one search on a GPU, and lists it looks at
FLAT_BYTES: Final = 6 * 10**9  # what a GPU of 300 GB/s, a small one, reads in the 20 ms a whole search may take
LISTS_OVERHEAD: Final = 1.25  # lists grow in blocks and keep an id of 8 bytes a row; an estimate
GRAPH_OVERHEAD: Final = 1.5  # a degree of 64, and what building it takes; an estimate
PQ_CODES: Final = (64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)  # bytes a row that FAISS's kernels know
PQ_FEWEST: Final = 256  # rows to train 256 centroids with
PQ_SAMPLE: Final = 65_536
PQ_DEEPER, PQ_LEAST = 8, 256  # codes say roughly what is near: so many times more rows are scored exactly
CAGRA_DEPTH: Final = 256
ROWS_AT_ONCE: Final = 65_536

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """How a search uses a GPU.

    Attributes:
        index: the form of the copy; `auto` chooses by size. A form that cannot be had falls back to `auto`.
        share: of the GPU's memory, the most that vectors take.
        after: queries that the CPU answers before the copy is made: it costs more than a few searches.
    """

    index: Literal["auto", "flat", "lists", "pq", "cagra"] = "auto"
    share: float = 0.5
    after: int = 64


@dataclass(frozen=True, eq=False)
class Rows:
    """What a mirror is made of: unit rows float32 `[n, d]` by position; centroids `[c, d]`, list of each row `[n]`."""

    vectors: Float32Array
    centroids: Float32Array | None
    lists: Int64Array | None

    @property
    def bytes(self) -> int:
        """Of the rows."""
        return self.vectors.nbytes


def load_faiss() -> Any:
    """FAISS, as whatever its build has: its stubs and its Python face disagree, and differ between builds."""
    return importlib.import_module("faiss")


def gpu_count() -> int:
    """GPUs this build of FAISS can use: 0 for a CPU build, and for a GPU build on a machine without one."""
    faiss = load_faiss()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def memory_bytes(device: int = 0) -> int:
    """All the memory of a GPU, by its driver, which FAISS does not pass on; 0 where the driver does not say."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    handle, total = ctypes.c_int(), ctypes.c_size_t()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(handle), device):
        return 0
    return 0 if driver.cuDeviceTotalMem_v2(ctypes.byref(total), handle) else int(total.value)


def chosen(gpu: Gpu, rows: Rows, memory: int) -> Kind | None:
    """The form of the copy, None where none fits: flat, exact, while it is fast; then the file's own lists; then codes.

    `memory` in bytes, 0 for unknown: then everything fits until FAISS says otherwise.
    """

    def fits(size: float) -> bool:
        return not memory or size <= gpu.share * memory

    has_lists = rows.centroids is not None
    possible: dict[Kind, bool] = {
        "flat": fits(rows.bytes),
        "lists": has_lists and fits(LISTS_OVERHEAD * rows.bytes),
        "pq": has_lists and len(rows.vectors) >= PQ_FEWEST and fits(len(rows.vectors) * (2 * PQ_CODES[0])),
        "cagra": hasattr(load_faiss(), "GpuIndexCagra") and fits(GRAPH_OVERHEAD * rows.bytes),
    }
    if gpu.index != "auto":
        if possible[gpu.index]:
            return gpu.index
        log.warning("gpu_index '%s' cannot be had for %d vectors here; choosing by size", gpu.index, len(rows.vectors))
    if possible["flat"] and (rows.bytes <= FLAT_BYTES or not possible["lists"]):
        return "flat"
    return next((kind for kind in ("lists", "pq") if possible[kind]), None)


class Mirror:
    """A copy on the GPU. `exact`: what it returns are the nearest for certain; `depth`: the most it returns."""

    kind: Kind
    exact = False
    depth = DEPTH

    def __init__(self, index: Any) -> None:
        self._index = index

    def search(self, queries: Float32Array, count: int, probes: int) -> tuple[Int64Array, Float32Array]:
        """Queries `[m, d]` -> positions `[m, count]`, -1 where there are fewer, and scores, falling."""
        scores, positions = self._index.search(queries, count)
        return positions, scores


class FlatMirror(Mirror):
    """Every row is looked at."""

    kind: Kind = "flat"
    exact = True

    @classmethod
    def of(cls, rows: Rows, resources: Any) -> FlatMirror:
        """Made of `rows`."""
        faiss = load_faiss()
        index = faiss.GpuIndexFlatIP(resources, rows.vectors.shape[1], faiss.GpuIndexFlatConfig())
        index.add(rows.vectors)  # in one call: the memory is taken once, and not half as much again as it grows
        return cls(index)


class ListsMirror(Mirror):
    """The lists of the index file, row for row: the same candidates as the CPU's, from the same number of lists."""

    kind: Kind = "lists"

    @classmethod
    def of(cls, rows: Rows, resources: Any) -> ListsMirror:
        """Made of `rows`."""
        faiss = load_faiss()
        index = _in_lists(rows, lambda *shape: faiss.IndexIVFFlat(*shape, faiss.METRIC_INNER_PRODUCT))
        assert rows.lists is not None
        order = np.argsort(rows.lists, kind="stable")
        sizes = np.bincount(rows.lists, minlength=index.nlist)
        for number, places in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
            if len(places):
                part, ids = np.ascontiguousarray(rows.vectors[places]), places.astype(np.int64)
                codes = part.view(np.uint8).reshape(len(part), -1)
                index.invlists.add_entries(number, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(codes))
        index.ntotal = len(order)
        return cls(faiss.index_cpu_to_gpu(resources, 0, index))

    def search(self, queries: Float32Array, count: int, probes: int) -> tuple[Int64Array, Float32Array]:
        """See `Mirror`; `probes` of the lists are looked at."""
        params = load_faiss().SearchParametersIVF(nprobe=probes)
        scores, positions = self._index.search(queries, count, params=params)
        return positions, scores


class PqMirror(ListsMirror):
    """Codes of 64 bytes a row in the same lists (Jégou et al. 2011); the best by code are scored by their rows."""

    kind: Kind = "pq"
    _gather: Gather

    @classmethod
    def of_codes(cls, rows: Rows, resources: Any, gather: Gather) -> PqMirror:
        """Made of `rows`; `gather` brings them back for scoring, see `rank`."""
        faiss, dim = load_faiss(), rows.vectors.shape[1]
        size = next(size for size in PQ_CODES if dim % size == 0)
        index = _in_lists(rows, lambda *shape: faiss.IndexIVFPQ(*shape, size, 8, faiss.METRIC_INNER_PRODUCT))
        index.is_trained = False  # the lists are; the codes are not
        index.pq.cp.min_points_per_centroid = 1  # with few rows FAISS prints a line for each byte
        sample = np.linspace(0, len(rows.vectors) - 1, min(PQ_SAMPLE, len(rows.vectors))).astype(np.int64)
        index.train(rows.vectors[sample])
        options = faiss.GpuClonerOptions()
        options.useFloat16 = True  # of the tables of distances: float32 ones of 64 codes exceed a block's memory
        copy = faiss.index_cpu_to_gpu(resources, 0, index, options)
        for start in range(0, len(rows.vectors), ROWS_AT_ONCE):  # encoded on the GPU, where it takes a moment
            part = rows.vectors[start : start + ROWS_AT_ONCE]
            copy.add_with_ids(part, np.arange(start, start + len(part)))
        mirror = cls(copy)
        mirror._gather = gather
        return mirror

    def search(self, queries: Float32Array, count: int, probes: int) -> tuple[Int64Array, Float32Array]:
        """See `Mirror`; the scores are exact."""
        deep = min(DEPTH, max(PQ_LEAST, PQ_DEEPER * count))
        found, _ = super().search(queries, deep, probes)
        scores = np.full(found.shape, -np.inf, np.float32)
        step = max(1, ROWS_AT_ONCE // deep)
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            exact = np.einsum("md,mcd->mc", queries[part], self._gather(np.maximum(found[part], 0)))
            scores[part] = np.where(found[part] >= 0, exact, -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)


class CagraMirror(Mirror):
    """A graph of neighbours (Ootomo et al. 2023), in builds of FAISS with cuVS: built on the GPU in one go."""

    kind: Kind = "cagra"
    depth = CAGRA_DEPTH

    @classmethod
    def of(cls, rows: Rows, resources: Any) -> CagraMirror:
        """Made of `rows`."""
        faiss = load_faiss()
        config = faiss.GpuIndexCagraConfig()
        index = faiss.GpuIndexCagra(resources, rows.vectors.shape[1], faiss.METRIC_INNER_PRODUCT, config)
        index.train(rows.vectors)
        return cls(index)

    def search(self, queries: Float32Array, count: int, probes: int) -> tuple[Int64Array, Float32Array]:
        """See `Mirror`; a row met twice counts once."""
        more = min(self.depth, count + count // 4 + 8, self._index.ntotal)
        params = load_faiss().SearchParametersCagra()
        params.itopk_size = max(128, -(-2 * more // 32) * 32)  # the width of the search: at least twice the results
        scores, positions = self._index.search(queries, more, params=params)
        valid = (positions >= 0) & (positions < self._index.ntotal)
        order = np.argsort(positions, axis=1, kind="stable")
        sorted_ = np.take_along_axis(positions, order, axis=1)
        again = np.zeros_like(valid)
        np.put_along_axis(again, order[:, 1:], sorted_[:, 1:] == sorted_[:, :-1], axis=1)
        first = np.argsort(~valid | again, axis=1, kind="stable")[:, :count]  # those that count, still by score
        positions = np.where(valid & ~again, positions, -1)
        return np.take_along_axis(positions, first, axis=1), np.take_along_axis(scores, first, axis=1)


def make_mirror(kind: Kind, rows: Rows, resources: Any, gather: Gather) -> Mirror:
    """The copy. Raises: RuntimeError where the GPU has no room for it, which is how FAISS says so."""
    if kind == "pq":
        return PqMirror.of_codes(rows, resources, gather)
    if kind == "lists":
        return ListsMirror.of(rows, resources)
    return FlatMirror.of(rows, resources) if kind == "flat" else CagraMirror.of(rows, resources)


def _in_lists(rows: Rows, make: Any) -> Any:
    """An empty index on the CPU over the lists of the index file."""
    assert rows.centroids is not None
    lists, dim = rows.centroids.shape
    quantizer = load_faiss().IndexFlatIP(dim)
    quantizer.add(np.ascontiguousarray(rows.centroids))
    index = make(quantizer, dim, lists)
    index.is_trained = True
    return index
