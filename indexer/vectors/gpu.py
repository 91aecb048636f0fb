"""Search on a GPU: a copy there finds candidates, the rows on the CPU rank them, so that the answers stay the same.

In: an index on the CPU. Out: its answers. The copy, at half precision, is made when enough was asked: flat while that
is fast, else the inverted lists of the CPU's index (`index_cpu_to_gpu`), or, when asked for, a graph of neighbours
(CAGRA, Ootomo et al. 2023, https://arxiv.org/abs/2308.15136, in builds of FAISS with cuVS). What is added afterwards is
looked at on the CPU, what is removed is passed over. What FAISS cannot do on a GPU (more than 2,048 results or lists,
narrow filters) the CPU answers, and everything when the GPU has no room. Next: `choose.py`.
"""

from __future__ import annotations

import ctypes
import logging
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import numpy as np

from indexer.base.types import Float32Array
from indexer.vectors.exact import ExactIndex, Mask
from indexer.vectors.faiss_index import EXACT_ROWS, HALF_ROUNDING, SCANNED_SHARE, FaissIndex, load_faiss
from indexer.vectors.protocol import Candidates, falling, joined, normalised, ranked
from indexer.vectors.rows import Int64Array, Rows, pieces

Kind = Literal["flat", "lists", "cagra"]

MOST: Final = 2048  # results of one search on a GPU, and lists it looks at
CAGRA_MOST: Final = 256
FLAT_BYTES: Final = 6 * 10**9  # what a GPU of 300 GB/s, a small one, reads in the 20 ms a whole search may take
OVERHEAD: Final[dict[Kind, float]] = {"flat": 1.0, "lists": 1.25, "cagra": 3.0}  # over float16 rows; estimates
FRESH_ROWS: Final = 65_536  # added since the copy was made; more of them, and it is made anew
FILTERED_DEEPER: Final = 1.5  # results fetched beyond what a filter lets through on average

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """How a search uses a GPU. A form that cannot be had falls back to `auto`, which chooses by size."""

    index: Literal["auto", "flat", "lists", "pq", "cagra"] = "auto"  # `pq`, of earlier versions, is now `lists`
    share: float = 0.5  # of the GPU's memory, the most that vectors take
    after: int = 64  # queries that the CPU answers before the copy is made: it costs more than a few searches


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


def chosen(gpu: Gpu, half_bytes: int, has_lists: bool, memory: int) -> Kind | None:
    """The form of a copy of `half_bytes` of float16 rows, None where none fits; `memory` in bytes, 0 for unknown."""
    room = gpu.share * memory if memory else math.inf
    possible: dict[Kind, bool] = {kind: factor * half_bytes <= room for kind, factor in OVERHEAD.items()}
    possible["lists"] &= has_lists
    possible["cagra"] &= hasattr(load_faiss(), "GpuIndexCagra")
    wanted = "lists" if gpu.index == "pq" else gpu.index
    if wanted != "auto":
        if possible[wanted]:
            return wanted
        log.warning("gpu_index '%s' cannot be had for %d MB of vectors; choosing by size", wanted, half_bytes // 10**6)
    if possible["flat"] and (half_bytes <= FLAT_BYTES or not possible["lists"]):
        return "flat"
    return "lists" if possible["lists"] else None


class GpuIndex:
    """An index on the CPU, which has the state, and a copy of its first positions on a GPU."""

    def __init__(self, index: ExactIndex | FaissIndex, gpu: Gpu | None = None) -> None:
        self.cpu = index
        self.rows = index.rows
        self.gpu = gpu or Gpu()
        self.kind: Kind | None = None  # of the copy
        self._exact = index if isinstance(index, ExactIndex) else index.exact
        self._copy: Any = None
        self._covered = 0  # positions in the copy
        self._resources: Any = None
        self._asked = 0
        self._given_up = False

    def search(self, queries: Float32Array, k: int, allowed: Int64Array | None = None) -> Candidates:
        """The `k` nearest, see `VectorIndex`."""
        self._asked += len(queries)
        mask = self._exact.mask(allowed)
        few = allowed is not None and mask.count <= EXACT_ROWS < len(mask.passes)
        if self._asked > self.gpu.after and mask.count and not few and self._has_copy(k, mask):
            try:
                units, fetch = normalised(queries, self.rows.dim), partial(self._fetch, mask, k)
                return ranked(units, k, mask.count, self.rows, fetch, doubt=HALF_ROUNDING)
            except _BeyondGpu:
                pass
            except (RuntimeError, MemoryError) as error:
                self._give_up(str(error))
        return self.cpu.search(queries, k, allowed)

    def _has_copy(self, k: int, mask: Mask) -> bool:
        if not self._given_up and (self.kind is None or len(mask.passes) - self._covered > FRESH_ROWS):
            self._make_copy()
        return self.kind == "flat" or (self.kind is not None and k * SCANNED_SHARE <= mask.count)

    def _fetch(self, mask: Mask, k: int, queries: Float32Array, count: int) -> Candidates:
        """The `count` best of the copy and of what came since."""
        within = mask.passes[: self._covered]
        inside = int(np.count_nonzero(within))
        wanted = count if inside == len(within) else int(FILTERED_DEEPER * count * len(within) / max(1, inside)) + k
        positions, scores = self._search_copy(queries, min(wanted, self._covered), mask)
        passes = (positions >= 0) & within[positions]  # [m, c]
        found = np.where(passes, positions, -1), np.where(passes, scores, -np.inf).astype(np.float32)
        enough = min(count, inside) if self.kind == "flat" else min(k, inside)
        if (passes.sum(axis=1) < enough).any():
            raise _BeyondGpu
        best = falling(joined(found, self._exact.scan(mask, queries, count, start=self._covered)))
        return best[0][:, :count], best[1][:, :count]

    def _search_copy(self, queries: Float32Array, count: int, mask: Mask) -> Candidates:
        if self.kind == "cagra":
            return self._search_graph(queries, count)
        nprobe = self.cpu.nprobe(mask) if self.kind == "lists" and isinstance(self.cpu, FaissIndex) else 0
        if max(count, nprobe) > MOST:
            raise _BeyondGpu
        params = load_faiss().SearchParametersIVF(nprobe=nprobe) if nprobe else None
        scores, positions = self._copy.search(queries, count, params=params)
        return positions, scores

    def _search_graph(self, queries: Float32Array, count: int) -> Candidates:
        """A graph may return a row twice, and places that are none."""
        if count > CAGRA_MOST:
            raise _BeyondGpu
        more = min(CAGRA_MOST, count + count // 4 + 8, self._covered)
        params = load_faiss().SearchParametersCagra()
        params.itopk_size = max(128, -(-2 * more // 32) * 32)  # the width of the search: at least twice the results
        scores, positions = self._copy.search(queries, more, params=params)
        once = np.zeros(positions.shape, np.bool_)
        for row, some in zip(once, positions, strict=True):
            row[np.unique(some, return_index=True)[1]] = True
        return np.where(once & (positions < self._covered), positions, -1), scores

    def _make_copy(self) -> None:
        """Make the copy anew, or give it up."""
        self.kind = self._copy = None
        try:
            if not gpu_count():
                self._give_up("")
                return
            started, count = time.perf_counter(), len(self.rows.ids)
            lists = self.cpu if isinstance(self.cpu, FaissIndex) and self.cpu.probing is not None else None
            kind = chosen(self.gpu, 2 * count * self.rows.dim, lists is not None, memory_bytes())
            if kind is None:
                self._give_up(f"no room for {count} vectors in any form")
                return
            self._resources = self._resources or load_faiss().StandardGpuResources()
            self._copy = whole_copy(self._resources, self.rows, kind, lists)
            self.kind, self._covered = kind, count
            log.info("%d vectors on the GPU as '%s' in %.1f s", count, kind, time.perf_counter() - started)
        except (RuntimeError, MemoryError, ImportError) as error:
            self._give_up(str(error))

    def _give_up(self, reason: str) -> None:
        """The CPU answers from now on; said once, and not at all where there is no GPU."""
        self.kind, self._copy, self._given_up = None, None, True
        if reason:
            log.warning("searching on the CPU, the GPU's index failed: %s", reason.splitlines()[0][:200])


class _BeyondGpu(Exception):
    """What FAISS does not do on a GPU."""


def whole_copy(resources: Any, rows: Rows, kind: Kind, lists: FaissIndex | None) -> Any:
    """A copy of all `rows` on the GPU, at half precision."""
    faiss = load_faiss()
    if kind == "lists":
        assert lists is not None
        lists.absorb()
        return faiss.index_cpu_to_gpu(resources, 0, half_lists(lists), _half(faiss.GpuClonerOptions()))
    units = np.empty((len(rows.ids), rows.dim), np.float32)
    for start, stop in pieces(len(units)):
        units[start:stop] = normalised(rows.slice(start, stop), rows.dim)
    if kind == "flat":
        copy = faiss.GpuIndexFlatIP(resources, rows.dim, _half(faiss.GpuIndexFlatConfig()))
        copy.add(units)  # in one call: the memory is taken once, and not half as much again as it grows
        return copy
    copy = faiss.GpuIndexCagra(resources, rows.dim, faiss.METRIC_INNER_PRODUCT, faiss.GpuIndexCagraConfig())
    copy.train(units)
    return copy


def _half(options: Any) -> Any:
    options.useFloat16 = True
    return options


def half_lists(index: FaissIndex) -> Any:
    """The same lists with float16 vectors in place of RaBitQ's bits, which FAISS does not have on a GPU."""
    faiss, ivf, dim = load_faiss(), index.faiss, index.rows.dim
    kind = faiss.ScalarQuantizer.QT_fp16
    copy = faiss.IndexIVFScalarQuantizer(ivf.quantizer, dim, ivf.nlist, kind, faiss.METRIC_INNER_PRODUCT, False)
    copy.is_trained = True
    for number in range(ivf.nlist):
        size = ivf.invlists.list_size(number)
        if size:
            places = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size).copy()
            codes = normalised(index.rows.take(places), dim).astype(np.float16).view(np.uint8)
            copy.invlists.add_entries(number, size, faiss.swig_ptr(places), faiss.swig_ptr(codes))
    copy.ntotal = ivf.ntotal
    return copy
