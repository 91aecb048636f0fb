"""Decoders that may crash, hang or eat all memory, in processes of their own that may die; the run goes on.

In: paths of pictures. Out: `Picture`s or `DecodeError`s, as from `decode_image`. Threads decode ordinary files (JPEG,
PNG, WebP, GIF, BMP) in this process, as fast as ever: their decoders are fuzzed around the clock, and bounds on
pixels, frames and scans bound their time. What is `RISKY` (`kinds.py`) goes to a worker, one a thread, started when
the first such file is met; the pixels come back through a pipe, a fraction of the time those formats take to decode.
A worker has `TIMEOUT_S` for a file and `MEMORY_BYTES`; one that dies is a skip with its signal, and is replaced.

And if an ordinary decoder did crash, the whole process would end. So each thread writes down which file it is about to
decode (`DecodeJournal`: one small write, no fsync, since a crash of the process leaves the page cache). The next run
finds the names of an unclean end and decodes these files in a worker: no file can end two runs.
Next: `sandbox_worker.py`, the other end of the pipe; `ingest/loader.py`, which calls this.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from PIL import Image

from indexer.base.errors import DecodeError
from indexer.decoding.decode import PIXEL_LIMIT, Picture
from indexer.decoding.metadata import Metadata

TIMEOUT_S: Final = 60.0
START_S: Final = 60.0  # more for the first file of a worker, which has to start: a busy machine is no hang
MEMORY_BYTES: Final = 4 << 30  # a picture of 178 megapixels in four channels, twice, and what its decoder needs
JOURNAL_FILE: Final = "decoding"
WORKER = ("-m", "indexer.decoding.sandbox_worker")
_SLOT_BYTES: Final = 4096 + 64  # the longest path of the systems this runs on


class Sandbox:
    """Workers for one run. Threads may call it at once; each has a worker of its own."""

    def __init__(self, side_px: int, *, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_BYTES) -> None:
        self._options = {"side_px": side_px, "timeout_s": timeout_s, "memory_bytes": memory_bytes}
        self._timeout_s = timeout_s
        self._mine = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []

    def decode(self, path: Path) -> Picture:
        """`decode_image` in a worker. Raises: DecodeError, also where the worker dies or takes too long."""
        said, frames = self._ask({"path": str(path), "pixels": True})
        width_px, height_px = said["size"]
        return Picture(
            frames[0],
            width_px,
            height_px,
            metadata_from_json(said["metadata"]),
            tuple(frames[1:]),
            tuple(said["times_s"]),
        )

    def read_metadata(self, path: Path) -> Metadata:
        """`read_metadata` in a worker. Raises: DecodeError."""
        return metadata_from_json(self._ask({"path": str(path), "pixels": False})[0]["metadata"])

    def close(self) -> None:
        """End the workers."""
        for process in self._all:
            _end(process)
        self._all.clear()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[Image.Image]]:
        is_new = getattr(self._mine, "process", None) is None
        process = self._worker()
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._timeout_s + is_new * START_S, stop)
        timer.daemon = True
        timer.start()
        try:
            said, frames = _exchange(process, request)
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            self._mine.process = None
            _end(process)
            if late.is_set():
                raise DecodeError(f"decoding took longer than {self._timeout_s:.0f} s") from error
            raise DecodeError(f"the decoder crashed on it ({_ending(process)})") from error
        finally:
            timer.cancel()
        if "error" in said:
            raise DecodeError(str(said["error"]))
        return said, frames

    def _worker(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = getattr(self._mine, "process", None)
        if process is not None and process.poll() is None:
            return process
        package = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH")) if part)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # their stacks count as memory
        process = subprocess.Popen(
            [sys.executable, *WORKER, json.dumps(self._options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders complain there about every broken file
            env={**os.environ, "PYTHONPATH": paths, **threads},
            start_new_session=True,  # Ctrl-C is for the run; the workers end when it closes their input
        )
        self._mine.process = process
        self._all.append(process)
        return process


class DecodeJournal:
    """Which files were being decoded when a process ended without saying so; kept in the library's folder."""

    def __init__(self, library: Path) -> None:
        self._path = library / JOURNAL_FILE
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._slots = 0
        self._descriptor: int | None = None
        self.suspects: frozenset[str] = frozenset()

    def open(self) -> None:
        """Read what an unclean end left, and start anew. A journal that cannot be kept is done without."""
        with contextlib.suppress(OSError):
            left = self._path.read_bytes()
            slots = (left[at : at + _SLOT_BYTES].rstrip(b"\0") for at in range(0, len(left), _SLOT_BYTES))
            self.suspects = frozenset(os.fsdecode(slot) for slot in slots if slot)
        if not hasattr(os, "pwrite"):  # Windows
            return
        with contextlib.suppress(OSError):  # new slots come behind the old ones, which stay until a clean end
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            self._slots = -(-os.fstat(self._descriptor).st_size // _SLOT_BYTES)

    def about_to_decode(self, path: Path) -> None:
        """Note the file this thread takes up; it takes the place of its last one."""
        if self._descriptor is None:
            return
        slot: int | None = getattr(self._mine, "slot", None)
        if slot is None:
            with self._lock:
                slot, self._slots = self._slots, self._slots + 1
            self._mine.slot = slot
        line = os.fsencode(path)[:_SLOT_BYTES].ljust(_SLOT_BYTES, b"\0")
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, line, slot * _SLOT_BYTES)

    def close(self) -> None:
        """A clean end, also by an exception: nothing crashed."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            with contextlib.suppress(OSError):
                self._path.unlink()


def metadata_to_json(said: Metadata) -> dict[str, Any]:
    """A `Metadata` as JSON."""
    values = asdict(said)
    values["taken_at"] = said.taken_at.isoformat() if said.taken_at else None
    return values


def metadata_from_json(values: dict[str, Any]) -> Metadata:
    """The inverse of `metadata_to_json`."""
    taken_at = datetime.fromisoformat(values["taken_at"]) if values["taken_at"] else None
    return Metadata(**{**values, "taken_at": taken_at, "keywords": tuple(values["keywords"])})


def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any]) -> tuple[dict[str, Any], list[Image.Image]]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    said = json.loads(line)
    frames = []
    for width_px, height_px in said.get("frames", ()):
        if not 0 < width_px * height_px <= PIXEL_LIMIT:
            raise ValueError(f"{width_px} x {height_px} pixels")
        size = 3 * width_px * height_px
        pixels = process.stdout.read(size)
        if len(pixels) != size:
            raise EOFError
        frames.append(Image.frombytes("RGB", (width_px, height_px), pixels))
    return said, frames


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not sent is of no use any more
                pipe.close()
    process.wait()


def _ending(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
