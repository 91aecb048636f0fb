"""Named points at which a run can be made to die or to find the disk full: how the crash tests know where they are.

In: `MMSEARCH_FAILPOINT=name[:n][=kill|enospc]` in the environment, read once. Out: at the n-th time that point is
reached (the first, where no number is given) the process kills itself as `kill -9` would, or the disk is full. Points
lie between steps, once a batch, a commit or a file, never inside a loop over files or vectors; with the variable unset
a point is one comparison with None. Next: the files where the points are, `ingest.py` before all.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

VARIABLE: Final = "MMSEARCH_FAILPOINT"
Action = Literal["kill", "enospc"]

INGEST: Final = (
    "ingest.claimed",  # the library is the model's
    "ingest.rooted",  # the folder is a root
    "ingest.settling",  # inside the transaction that hides what is gone and takes back what returned
    "ingest.settled",
    "batch.encoded",  # encoded, nothing written
    "batch.writing",  # inside the transaction of a batch, everything written
    "batch.committed",
    "captions.pairing",  # inside the transaction that brings captions in step with the files
    "captions.paired",
    "captions.writing",  # inside the transaction of a batch of captions
    "captions.committed",
    "fusion.writing",  # inside the transaction of a batch of fused photos
    "fusion.committed",
    "ingest.closing",  # inside the transaction that says captions and fusions are in step
    "ingest.closed",
    "ingest.saved",  # the index file is written, the time of the run is not
)
SAVE: Final = (
    "save.numbered",  # a generation has its number
    "save.opening",  # the folder is there, the temporary file is not
    "save.written",  # the temporary file is whole, perhaps not on the disk
    "save.synced",
    "save.renamed",
    "save.named",  # the new name is on the disk
    "save.vouching",  # inside the transaction that makes it the one in use
    "save.vouched",
    "save.swept",  # the old file is gone
)
MIGRATE: Final = ("migrate.beginning", "migrate.upgraded", "migrate.committed")
REENCODE: Final = (
    "reencode.begun",
    "reencode.writing",  # inside the transaction of a batch
    "reencode.committed",
    "reencode.fused",  # everything has a vector of the new model, searches answer from the old
    "reencode.switching",  # inside the transaction that switches
    "reencode.switched",
)
REPAIR: Final = ("repair.mending", "repair.mended", "repair.remade")
SALVAGE: Final = (
    "salvage.copied",  # what can be read is in a new file
    "salvage.aside",  # the damaged file has its second name, the new one not yet its first
)
POINTS: Final = (*INGEST, *SAVE, *MIGRATE, *REENCODE, *REPAIR, *SALVAGE)


@dataclass
class _Armed:
    name: str
    left: int
    action: Action

    def reach(self, name: str) -> None:
        if name != self.name:
            return
        self.left -= 1
        if self.left:
            return
        if self.action == "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows ends at once by any signal


def parse(text: str) -> _Armed:
    """`name[:n][=action]`. Raises: ValueError for what is none, so that a test cannot pass by a slip of the pen."""
    place, _, action = text.partition("=")
    name, _, number = place.partition(":")
    if name not in POINTS:
        raise ValueError(f"{VARIABLE}={text}: no point '{name}'; known: {', '.join(POINTS)}")
    count = int(number or 1)
    if count < 1 or action not in ("", "kill", "enospc"):
        raise ValueError(f"{VARIABLE}={text}: expected name[:n][=kill|enospc] with n from 1")
    return _Armed(name, count, "enospc" if action == "enospc" else "kill")


_armed: _Armed | None = parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def reach(name: str) -> None:
    """Say that the run is at this point."""
    if _armed is not None:
        _armed.reach(name)


@contextmanager
def armed(text: str) -> Iterator[None]:
    """The same as the variable, for a block in this process."""
    global _armed
    before, _armed = _armed, parse(text)
    try:
        yield
    finally:
        _armed = before
