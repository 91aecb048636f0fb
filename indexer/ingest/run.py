"""One index run: what all its steps share, and what it has counted so far.

In: an open catalog, an encoder. Out: a `Run`, handed from step to step; at the end an `IndexReport`.
Next: `ingest.py`, which makes it; `plan.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from indexer.base.profile import Profiler
from indexer.base.types import Encoder, IndexReport, Model, Profile, ProgressCallback
from indexer.catalog.database import Catalog
from indexer.search import index_files


@dataclass
class Tally:
    """The counts of an `IndexReport` while they grow."""

    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    skipped: int = 0
    postponed: int = 0
    offline: int = 0
    excluded: int = 0
    encoded: int = 0

    def report(self, profile: Profile) -> IndexReport:
        """What the run did, at its end."""
        return IndexReport(
            added=self.added,
            updated=self.updated,
            moved=self.moved,
            unchanged=self.unchanged,
            skipped=self.skipped,
            postponed=self.postponed,
            offline=self.offline,
            excluded=self.excluded,
            encoded=self.encoded,
            seconds=profile.seconds,
            profile=profile,
        )


@dataclass(frozen=True)
class Run:
    """What every step of one run needs. `library` is its folder, `batch_size` files are encoded together."""

    catalog: Catalog
    library: Path
    model: Model
    encoder: Encoder
    batch_size: int
    progress: ProgressCallback
    clock: Profiler
    tally: Tally = field(default_factory=Tally)

    def write_index(self) -> None:
        """Bring the index file up to date with the catalog."""
        with self.clock.stage("index_file") as written:
            folder = self.library / index_files.VECTORS_FOLDER
            written.items += index_files.refresh(self.catalog, folder, self.model)
