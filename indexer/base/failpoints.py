"""Failpoints: named places in the code at which tests kill the process or make the disk full.

In: `MMSEARCH_FAILPOINT=name[:n][=kill|enospc]` in the environment, read once. Out: when that point is reached for the
n-th time (by default the first), the process kills itself as by `kill -9`, or gets the error of a full disk. Points are
between steps (a batch, a commit, a file), never inside a loop over files or vectors. When the variable is not set, a
point costs one comparison with None. Next: the callers of `reach`, `ingest/ingest.py` first.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from typing import Final, Literal

VARIABLE: Final = "MMSEARCH_FAILPOINT"
Action = Literal["kill", "enospc"]

INGEST: Final = (
    "ingest.claimed",  # the library is bound to the model
    "ingest.rooted",  # the folder is recorded as a root
    "ingest.settling",  # inside the transaction that marks missing files and restores returned ones
    "ingest.settled",
    "batch.encoded",  # encoded, nothing written
    "batch.writing",  # inside the transaction of a batch, everything written
    "batch.committed",
    "captions.pairing",  # inside the transaction that matches captions to the files
    "captions.paired",
    "captions.writing",  # inside the transaction of a batch of captions
    "captions.committed",
    "fusion.writing",  # inside the transaction of a batch of fused photos
    "fusion.committed",
    "ingest.closing",  # inside the transaction that records captions and fusions as up to date
    "ingest.closed",
    "ingest.saved",  # the index file is written, the end of the run is not recorded
)
SAVE: Final = (
    "save.numbered",  # a generation has its number
    "save.opening",  # the folder is there, the temporary file is not
    "save.written",  # the temporary file is whole, perhaps not on the disk
    "save.synced",
    "save.renamed",
    "save.named",  # the new name is on the disk
    "save.committing",  # inside the transaction that records the new file as the current one
    "save.committed",
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
    """Parse `name[:n][=action]`. Raises: ValueError for an unknown name, so that a typing error cannot pass a test."""
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
    """Mark this place as the point `name`."""
    if _armed is not None:
        _armed.reach(name)
