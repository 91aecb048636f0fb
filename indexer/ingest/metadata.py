"""Pictures whose metadata was never read: of an older version, or copies of known ones.

In: the pictures of a target without a row of their own in `about`. Out: rows. That opens each file once and reads its
header; nothing is encoded again but the words that turn up, so a library of 100,000 photos pays minutes once, and an
interrupted run goes on where it was. Next: `sidecars.py`.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from indexer.base.errors import DecodeError
from indexer.base.profile import cores
from indexer.catalog import metadata, root_updates
from indexer.catalog.roots import Target
from indexer.decoding.decode import read_metadata
from indexer.decoding.metadata import Metadata
from indexer.decoding.sandbox import Sandbox
from indexer.files.kinds import HEAD_BYTES, kind_of
from indexer.ingest.run import Run

_PARSED_IN_C: Final = ("heif", "avif", "video")  # the headers of all others are read in Python
CHUNK: Final = 400  # files read in one transaction


def catch_up(run: Run, target: Target) -> int:
    """Read the metadata of the pictures of `target` that have none; how many. Commits as it goes."""
    done = 0
    with run.catalog.begin() as connection:
        unread = metadata.unread(connection, target)
    if not unread:
        return 0
    side_px = run.encoder.side_px
    with ThreadPoolExecutor(cores(), thread_name_prefix="metadata") as pool, Sandbox(side_px) as sandbox:
        for start in range(0, len(unread), CHUNK):
            chunk = unread[start : start + CHUNK]
            answers = pool.map(lambda one: _read(target.root.path / one[1], sandbox), chunk)
            said = {asset_id: one for (asset_id, _), one in zip(chunk, answers, strict=True) if one is not None}
            with run.catalog.begin() as connection:
                metadata.record(connection, said)
                root_updates.set_pairing_due(connection, [target.root.id])
            done += len(said)
    return done


def _read(path: Path, sandbox: Sandbox) -> Metadata | None:
    """What a picture says; None where the file cannot be opened now."""
    try:
        with path.open("rb") as file, contextlib.suppress(DecodeError):
            kind = kind_of(file.read(HEAD_BYTES))
            file.seek(0)
            return sandbox.read_metadata(path) if kind in _PARSED_IN_C else read_metadata(file)
    except OSError:
        return None
    return Metadata()
