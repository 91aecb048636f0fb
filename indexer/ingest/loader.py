"""Files to content, in a few threads, ahead of the encoder but never far ahead.

In: `Job`s. Out: `Loaded`, in the order of the jobs: a hash, and pixels ready for the model, or a text, or why not.
Pillow and hashlib release the interpreter's lock, so threads decode on every core. Next: `encode.py`.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from indexer.base.errors import DecodeError, DecodeInterrupted
from indexer.base.profile import Profiler, cores
from indexer.base.types import Encoder, Modality, UInt8Array
from indexer.decoding.decode import TEXT_LIMIT_BYTES, Picture, decode_image, decode_text
from indexer.decoding.sandbox import DecodeJournal, Sandbox
from indexer.files.kinds import HEAD_BYTES, RISKY, kind_of, missing_extra
from indexer.files.opening import PhotoFolder
from indexer.ingest.plan import Job

HASH_BYTES = 20
RETRY_MTIME_NS = -1  # no file has this time: recorded for a file of which nothing is known, it is tried again each run


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """One file, read: `error`, `pixels` or `text` is set, or none of them where the content is on record already."""

    job: Job
    size_bytes: int
    mtime_ns: int
    content_hash: bytes | None
    error: str | None = None
    picture: Picture | None = None  # without its pixels, which `pixels` replaces
    pixels: UInt8Array | None = None
    later: UInt8Array | None = None  # [f, side_px, side_px, 3]: the middle and the last frame of an animation
    text: str | None = None

    @property
    def is_postponed(self) -> bool:
        """Nothing is known of the content: the next run tries again."""
        return self.mtime_ns == RETRY_MTIME_NS

    @property
    def is_touched(self) -> bool:
        """The content is what the catalog has for this very path."""
        return self.error is None and self.content_hash is not None and self.content_hash == self.job.content_hash

    @property
    def is_fresh(self) -> bool:
        """The content has to be encoded."""
        return self.pixels is not None or self.text is not None

    @property
    def is_reused(self) -> bool:
        """The content has a vector already, at another path."""
        return self.error is None and not self.is_touched and not self.is_fresh


KnownHashes = Mapping[Modality, Collection[bytes]]


def load_all(
    folder: PhotoFolder,
    jobs: Iterable[Job],
    encoder: Encoder,
    known: KnownHashes,
    look_ahead: int,
    library: Path,
    clock: Profiler,
) -> Generator[Loaded, None, None]:
    """Load `jobs`, `look_ahead` of them at most beyond the one given out. Close the iterator to stop early.

    The folder of the library is where the files being decoded are noted, in case one of them ends this process.
    """
    Image.init()  # plugins register once, here, and not in several threads at a time
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(cores(), thread_name_prefix="decode") as pool,
        Sandbox(encoder.side_px) as sandbox,  # closed before the pool, whose threads may be waiting for it
        closing(DecodeJournal(library)) as journal,
    ):
        journal.open()
        read = Reader(folder, encoder, known, sandbox, journal)
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about broken metadata; what matters raises
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the limit is ours
        yield from _ordered(pool, partial(_timed, read, clock), jobs, look_ahead, clock)


@dataclass(frozen=True)
class Reader:
    """What every file of one run is read with."""

    folder: PhotoFolder
    encoder: Encoder
    known: KnownHashes
    sandbox: Sandbox
    journal: DecodeJournal

    def decode(self, file: BinaryIO, rel_path: str) -> Picture:
        """Decode in this thread, or behind the sandbox what may crash."""
        path = self.folder.root / rel_path
        kind = kind_of(file.read(HEAD_BYTES))
        file.seek(0)
        is_risky = kind in RISKY and not missing_extra(kind)
        if is_risky or str(path) in self.journal.suspects:
            return self.sandbox.decode(Path(file.name))  # without the links of its path
        self.journal.about_to_decode(path)
        return decode_image(file, side_px=self.encoder.side_px)


def load(reader: Reader, job: Job) -> Loaded:
    """Read, hash and decode one file; content whose hash is known is not decoded again."""
    encoder = reader.encoder
    try:
        with reader.folder.open(job.rel_path) as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=HASH_BYTES)).digest()
            seen = (job, status.st_size, status.st_mtime_ns, digest)
            if digest == job.content_hash or digest in reader.known[job.modality]:
                return Loaded(*seen)
            file.seek(0)
            try:
                if not status.st_size:
                    raise DecodeError("empty file")
                if job.modality == "text":
                    return Loaded(*seen, text=decode_text(file.read(TEXT_LIMIT_BYTES + 1)))
                picture = reader.decode(file, job.rel_path)
                pixels = _prepare(encoder, picture.image)
                later = np.stack([_prepare(encoder, one) for one in picture.later]) if picture.later else None
                return Loaded(*seen, picture=picture.without_pixels(), pixels=pixels, later=later)
            except DecodeInterrupted as error:
                return _postponed(job, f"{error}; the next run tries again")
            except DecodeError as error:
                return Loaded(*seen, error=str(error))
    except OSError as error:
        return _postponed(job, f"cannot be read ({error.strerror or error})")


def _postponed(job: Job, reason: str) -> Loaded:
    return Loaded(job, 0, RETRY_MTIME_NS, None, error=reason)


def _timed(reader: Reader, clock: Profiler, job: Job) -> Loaded:
    started = time.perf_counter()
    loaded = load(reader, job)
    clock.helped("decode", time.perf_counter() - started)
    return loaded


def _prepare(encoder: Encoder, image: Image.Image) -> UInt8Array:
    try:
        return encoder.prepare_image(image)
    except (ValueError, OSError, MemoryError, ZeroDivisionError) as error:
        raise DecodeError(f"the picture does not fit the model ({error})") from error


def _ordered(
    pool: ThreadPoolExecutor, work: Callable[[Job], Loaded], jobs: Iterable[Job], look_ahead: int, clock: Profiler
) -> Generator[Loaded, None, None]:
    pending: deque[Future[Loaded]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(work, job))
            if len(pending) > look_ahead:
                yield _first(pending, clock)
        while pending:
            yield _first(pending, clock)
    finally:
        for future in pending:
            future.cancel()


def _first(pending: deque[Future[Loaded]], clock: Profiler) -> Loaded:
    with clock.waiting():
        return pending.popleft().result()
