"""Search on a GPU: the state stays the CPU's (`file_index.py`), a copy of it on the GPU finds candidates.

In: what `FileIndex` takes. Out: the same answers. The copy is made when enough was asked; what is added afterwards is
looked at on the CPU, what is removed is passed over, and both are taken into a new copy when it is much. What FAISS
cannot do on a GPU (more than 2,048 results, narrow filters) the CPU answers, and everything when the GPU has no room.
Next: `choose.py`, which picks a backend.
"""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexer.base.types import Float32Array
from indexer.vectors.base import SLACK, BoolArray, Fetch, Int64Array
from indexer.vectors.file_index import FileIndex
from indexer.vectors.layout import IndexFile
from indexer.vectors.mirrors import (
    DEPTH,
    ROWS_AT_ONCE,
    Gpu,
    Mirror,
    Rows,
    chosen,
    gpu_count,
    load_faiss,
    make_mirror,
    memory_bytes,
)

FRESH_ROWS: Final = 65_536  # added since the copy was made; more of them, and it is made anew
HELD_SHARE: Final = 0.25  # of this machine's memory, the most that rows held for scoring take
DEEPER: Final = 1.5  # results fetched beyond what a filter lets through on average

log = logging.getLogger(__name__)


class GpuIndex(FileIndex):
    """A `FileIndex` with a copy of its first positions on a GPU: those of its file, or all of them."""

    def __init__(self, dim: int, file: IndexFile | None = None, gpu: Gpu | None = None) -> None:
        super().__init__(dim, file)
        self.gpu = gpu or Gpu()
        self._asked = 0
        self._resources: Any = None
        self._mirror: Mirror | None = None
        self._covered = 0  # positions in the copy
        self._held: Float32Array | None = None  # their rows in memory, where there is room
        self._given_up = False

    @classmethod
    def load(cls, path: Path, gpu: Gpu | None = None) -> GpuIndex:
        """Open what `save` wrote. Raises: LibraryCorrupt."""
        file = IndexFile.open(path)
        return cls(file.dim, file, gpu)

    def remove(self, ids: Int64Array) -> int:
        """Take ids out, see `VectorIndex`."""
        gone = super().remove(ids)
        if gone and self._covered > len(self._dead):  # positions behind the file move up
            self._drop()
        return gone

    def gather(self, positions: Int64Array) -> Float32Array:
        """The vectors at positions of any shape `[...]`, float32 `[..., d]`."""
        if self._held is None or (positions.size and int(positions.max()) >= len(self._held)):
            return super().gather(positions)
        return self._held[positions]

    def _fetcher(
        self, asked: int, k: int, available: int, filtered: bool, mask: BoolArray | None
    ) -> tuple[Fetch, float]:
        """From the copy where it serves; the CPU's way for the rest."""
        self._asked += asked
        cpu, doubt = super()._fetcher(asked, k, available, filtered, mask)
        serves = self._serves(self._is_exact(k, available, filtered), self._is_small(k, available, filtered))
        return (partial(self._fetch, mask, cpu) if serves else cpu), doubt

    def _serves(self, exactly: bool, small: bool) -> bool:
        """Whether the copy takes part in a search, which is made for it where there is none."""
        if self._given_up or self._asked <= self.gpu.after or not len(self._all_ids()):
            return False
        if self._mirror is None or len(self._all_ids()) - self._covered > FRESH_ROWS:
            self._copy()
        if self._mirror is None or self._mirror.exact:
            return self._mirror is not None
        return not (small if self._mirror.kind == "cagra" else exactly)  # a graph knows no lists

    def _fetch(
        self, mask: BoolArray | None, cpu: Fetch, part: Float32Array, count: int
    ) -> tuple[Int64Array, Float32Array]:
        """The `count` best of the copy and of what came since; `cpu` answers what the copy cannot."""
        within = None if mask is None else mask[: self._covered]
        inside = self._covered if within is None else int(np.count_nonzero(within))
        wanted = count if within is None else int(DEEPER * count * self._covered / max(1, inside)) + SLACK
        depth = min(wanted, self._covered)
        probes, mirror = self._lists_to_look_at(mask), self._mirror
        if mirror is None or not inside or depth > mirror.depth or probes > DEPTH:
            return cpu(part, count)
        try:
            positions, scores = mirror.search(part, depth, probes)
        except (RuntimeError, MemoryError) as error:
            self._give_up(str(error))
            return cpu(part, count)
        passes = positions >= 0 if within is None else (positions >= 0) & within[positions]  # [m, depth]
        fresh, fresh_scores = self._scan(mask, part, count, self._covered)
        found = passes.sum(axis=1)  # [m]
        all_met = positions[:, -1] < 0  # of the lists that were looked at
        enough = (found >= min(count, inside)) | (all_met & (found + fresh.shape[1] >= count))
        positions = np.concatenate([positions, fresh], axis=1)
        scores = np.concatenate([np.where(passes, scores, -np.inf), fresh_scores], axis=1, dtype=np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        best = (np.take_along_axis(positions, order, axis=1), np.take_along_axis(scores, order, axis=1))
        if not enough.all():
            best[0][~enough], best[1][~enough] = cpu(part[~enough], count)
        return best

    def _lists_to_look_at(self, mask: BoolArray | None) -> int:
        return self._probes(mask) if self._file is not None and self._file.centroids is not None else 0

    def _copy(self) -> None:
        """Make the copy anew, or give it up."""
        self._drop()
        try:
            if not gpu_count():
                self._give_up("")
                return
            started = time.perf_counter()
            in_file, everything = len(self._dead), len(self._all_ids())
            covered = in_file if in_file and everything - in_file <= FRESH_ROWS else everything
            rows = self._first_rows(covered)
            kind = chosen(self.gpu, rows, memory_bytes())
            if kind is None:
                self._give_up(f"no room for {covered} vectors in any form")
                return
            self._resources = self._resources or load_faiss().StandardGpuResources()
            self._held = rows.vectors if rows.bytes <= HELD_SHARE * _machine_bytes() else None
            self._covered = covered
            self._mirror = make_mirror(kind, rows, self._resources, self.gather)
            log.info("%d vectors on the GPU as '%s' in %.1f s", covered, kind, time.perf_counter() - started)
        except (RuntimeError, MemoryError, ImportError) as error:
            self._give_up(str(error))

    def _first_rows(self, covered: int) -> Rows:
        """The first `covered` positions, also of what was removed, and the list of each."""
        vectors = np.empty((covered, self.dim), np.float32)
        for number, first in enumerate(self._layout()[0].tolist()):
            if first < covered:
                rows = self._decoded(self._rows(number)[: covered - first])
                vectors[first : first + len(rows)] = rows
        centroids = self._file.centroids if self._file is not None else None
        if centroids is None:
            return Rows(vectors, None, None)
        lists = [self.list_of()]
        for start in range(len(lists[0]), covered, ROWS_AT_ONCE):
            lists.append(np.argmax(vectors[start : start + ROWS_AT_ONCE] @ centroids.T, axis=1))
        return Rows(vectors, centroids, np.concatenate(lists))

    def _drop(self) -> None:
        self._mirror, self._held, self._covered = None, None, 0

    def _give_up(self, reason: str) -> None:
        """The CPU answers from now on; said once, and not at all where there is no GPU."""
        self._drop()
        self._given_up = True
        if reason:
            log.warning("searching on the CPU, the GPU's index failed: %s", reason.splitlines()[0][:200])


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
