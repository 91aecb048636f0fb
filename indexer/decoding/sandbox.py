"""Run decoders that may crash, hang or use all memory in worker processes; the index run goes on when one dies.

In: paths of pictures. Out: `Picture`s or `DecodeError`s, as from `decode_image`. The common formats (JPEG, PNG, WebP,
GIF, BMP) are decoded by threads of this process at full speed: their decoders are fuzzed continuously, and limits on
pixels, frames and scans bound their time. Formats in `RISKY` (`files/kinds.py`) are decoded in a worker, one per
thread, started at the first such file. The pixels come back through a pipe, which takes little time beside decoding.
A worker has `TIMEOUT_S` for each file and `MEMORY_LIMIT_BYTES`. If it dies, a fresh one tries the same file; if that
one crashes, too, the file is skipped with the signal as the reason. Where a worker was killed or stopped from outside,
as by a system short of memory, nothing is known of the file: `DecodeInterrupted` says that it is worth another run.

If a decoder of a common format did crash, the whole process would end. So each thread records which file it is about to
decode (`DecodeJournal`: one small write without fsync, since the page cache survives a crash of the process). The next
run finds these names and decodes the files in a worker: no file can end two runs.
Next: `base/worker.py`, the process; `sandbox_worker.py`, what runs in it; `ingest/loader.py`, which calls this.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from PIL import Image

from indexer.base.errors import DecodeError, DecodeInterrupted
from indexer.base.plain_files import open_plain, reading
from indexer.base.worker import Message, Worker, WorkerDied
from indexer.decoding.decode import Picture
from indexer.decoding.metadata import Metadata

TIMEOUT_S: Final = 60.0
MEMORY_LIMIT_BYTES: Final = 4 << 30  # two pictures of 178 megapixels in four channels, and what a decoder needs
JOURNAL_FILE: Final = "decoding"
WORKER: Final = ("-m", "indexer.decoding.sandbox_worker")
_SLOT_BYTES: Final = 4096 + 64  # the longest path that Linux and macOS allow
_MOST_BYTES: Final = 4096 * _SLOT_BYTES


class Sandbox:
    """The workers of one run. Thread-safe: each thread has a worker of its own."""

    def __init__(self, side_px: int, *, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._side_px = side_px
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._local = threading.local()
        self._workers: list[Worker] = []
        self._closed = False

    def decode(self, path: Path) -> Picture:
        """`decode_image` in a worker. Raises: DecodeError, also where it dies of the file; DecodeInterrupted."""
        answer, parts = self._request({"path": str(path), "pixels": True})
        try:
            sizes = [tuple(size) for size in answer["frames"]]
            frames = [Image.frombytes("RGB", size, part) for size, part in zip(sizes, parts, strict=True)]
            width_px, height_px = answer["size"]
            metadata, times_s = metadata_from_json(answer["metadata"]), tuple(answer["times_s"])
            return Picture(frames[0], width_px, height_px, metadata, tuple(frames[1:]), times_s)
        except (LookupError, TypeError, ValueError) as error:
            raise DecodeError("the decoder crashed on it (its answer makes no sense)") from error

    def read_metadata(self, path: Path) -> Metadata:
        """`read_metadata` in a worker. Raises: DecodeError, DecodeInterrupted."""
        return metadata_from_json(self._request({"path": str(path), "pixels": False})[0]["metadata"])

    def close(self) -> None:
        """End the workers, also under threads that wait for them."""
        self._closed = True
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, request: Message) -> tuple[Message, list[bytes]]:
        worker: Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            options = {"side_px": self._side_px}
            worker = Worker(WORKER, options, timeout_s=self._timeout_s, memory_bytes=self._memory_bytes)
            self._local.worker = worker
            self._workers.append(worker)
        if self._closed:
            worker.close()
        try:
            answer, parts = worker.request(request)
        except WorkerDied as died:
            if died.from_outside:
                raise DecodeInterrupted(f"the decoder was ended from outside ({died})") from died
            if died.timed_out:
                raise DecodeError(f"decoding took longer than {self._timeout_s:.0f} s") from died
            raise DecodeError(f"the decoder crashed on it ({died})") from died
        if "error" in answer:
            raise (DecodeInterrupted if answer.get("is_postponed") else DecodeError)(str(answer["error"]))
        return answer, parts


class DecodeJournal:
    """The files that were being decoded when a process crashed, in one file of the library's folder.

    The file has a slot of fixed size for each thread, with the path that it decodes now.
    """

    def __init__(self, library: Path) -> None:
        self._path = library / JOURNAL_FILE
        self._local = threading.local()
        self._lock = threading.Lock()
        self._slots = 0
        self._descriptor: int | None = None
        self.suspects: frozenset[str] = frozenset()

    def open(self) -> None:
        """Read into `suspects` what a crashed run left, and start. Does nothing where the folder is not writable.

        Raises: NotPlainFile.
        """
        with contextlib.suppress(OSError), reading(self._path) as file:
            data = file.read(_MOST_BYTES)
            slots = (data[at : at + _SLOT_BYTES].rstrip(b"\0") for at in range(0, len(data), _SLOT_BYTES))
            self.suspects = frozenset(os.fsdecode(slot) for slot in slots if slot)
        if not hasattr(os, "pwrite"):  # Windows
            return
        with contextlib.suppress(OSError):  # new slots follow the old ones, which stay until a run ends cleanly
            self._descriptor = open_plain(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            size_bytes = os.fstat(self._descriptor).st_size
            if size_bytes > _MOST_BYTES:  # nothing that crashes leaves so many
                os.ftruncate(self._descriptor, 0)
                size_bytes = 0
            self._slots = -(-size_bytes // _SLOT_BYTES)

    def about_to_decode(self, path: Path) -> None:
        """Record the file that this thread decodes next, in place of its last one."""
        if self._descriptor is None:
            return
        slot: int | None = getattr(self._local, "slot", None)
        if slot is None:
            with self._lock:
                slot, self._slots = self._slots, self._slots + 1
            self._local.slot = slot
        line = os.fsencode(path)[:_SLOT_BYTES].ljust(_SLOT_BYTES, b"\0")
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, line, slot * _SLOT_BYTES)

    def close(self) -> None:
        """Remove the journal: the run ended, perhaps by an exception, but not by a crash."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            with contextlib.suppress(OSError):
                self._path.unlink()


def metadata_to_json(metadata: Metadata) -> dict[str, Any]:
    """Values that JSON can hold."""
    taken_at = metadata.taken_at.isoformat() if metadata.taken_at else None
    return asdict(metadata) | {"taken_at": taken_at}


def metadata_from_json(values: dict[str, Any]) -> Metadata:
    """The inverse of `metadata_to_json`."""
    taken_at = datetime.fromisoformat(values["taken_at"]) if values["taken_at"] else None
    return Metadata(**{**values, "taken_at": taken_at, "keywords": tuple(values["keywords"])})
