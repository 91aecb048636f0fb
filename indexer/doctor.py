"""One visit to the doctor: look, mend, bring the folders concerned up to date, look again.

In: the library's folder and a way to its model. Out: a `DoctorReport`. Without `repair` nothing is written. A database
that cannot be read is replaced by what can be saved of it before anything else. Next: `maintenance/examine.py`;
`catalog/damaged.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from indexer.base.errors import LibraryCorrupt, LibraryError, MMSearchError
from indexer.base.lock import writer_lock
from indexer.base.types import Encoder
from indexer.catalog.damaged import salvage
from indexer.maintenance.compare import MEND, Check, Faults
from indexer.maintenance.examine import DATABASE, ROWS
from indexer.search.search import CATALOG_FILE
from indexer.store import Store

Load = Callable[[Store], Encoder]
Saved = tuple[dict[str, int], Path]  # rows by table, and the damaged file under its new name
ROUNDS: Final = 3


@dataclass(frozen=True)
class DoctorReport:
    """Every check in order; `seconds` is wall time."""

    checks: tuple[Check, ...]
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong any more."""
        return not any(check.faults and not check.mended for check in self.checks)

    def to_dict(self) -> dict[str, object]:
        """The report as `mmsearch doctor --json` prints it."""
        return {"sound": self.sound, **asdict(self)}


def visit(path: Path, load: Load, *, repair: bool, sample: int, batch_size: int = 32) -> DoctorReport:
    """Examine the library in folder `path`, and with `repair` mend what can be mended without loss.

    Args:
        load: gives the model of an open store; asked only for a sample, or to encode again what was wrong.
        sample: files and captions to encode again; 0 leaves the model alone.

    Raises: LibraryNotFound; LibraryLocked when something has to be mended while another process writes.
    """
    started = time.perf_counter()
    faults = Faults()
    found = _look(path, load, sample, faults)
    if repair and any(check.faults for check in found):
        saved: Saved | None = None
        now, kept = found, ""
        if _is_wrong(now, DATABASE):
            with writer_lock(path):
                saved = salvage(path / CATALOG_FILE)
            faults = Faults()
            now = _look(path, load, sample, faults)
        for _ in range(ROUNDS):  # a cell that is longer than SQLite reads keeps others from being looked at
            if not _is_wrong(now, ROWS):
                break
            with Store.open(path) as store:
                kept = store.set_aside()
            faults = Faults()
            now = _look(path, load, sample, faults)
        _mend(path, load, faults, batch_size)
        found = _compared(found, _look(path, load, sample, Faults()), saved, kept)
    return DoctorReport(tuple(found), time.perf_counter() - started)


def _look(path: Path, load: Load, sample: int, faults: Faults) -> list[Check]:
    """Every check. A database that seems damaged is looked at again: one read that failed condemns nothing."""
    found = _look_once(path, load, sample, faults)
    condemned = any(check.faults and check.name == DATABASE for check in found)
    return _look_once(path, load, sample, faults) if condemned else found


def _look_once(path: Path, load: Load, sample: int, faults: Faults) -> list[Check]:
    try:
        with Store.open(path) as store:
            foundation = store.foundation()
            if any(check.faults for check in foundation):
                return foundation
            try:
                encoder = load(store) if sample > 0 and store.model() is not None else None
                return [*foundation, *store.examine(encoder, sample, faults)]
            except LibraryError:
                raise
            except MMSearchError as error:  # the model's own files: nothing here can mend them
                return [*foundation, *store.examine(None, 0, faults), Check("model file", 1, str(error))]
    except LibraryCorrupt as error:
        return [Check(DATABASE, 1, str(error), MEND)]


def _mend(path: Path, load: Load, faults: Faults, batch_size: int) -> None:
    with Store.open(path) as store:
        for folder in store.mend(faults):
            store.ingest(folder, load(store), batch_size=batch_size, named=False)


def _is_wrong(checks: list[Check], name: str) -> bool:
    return any(check.faults and check.name == name for check in checks)


def _compared(before: list[Check], after: list[Check], saved: Saved | None, kept: str) -> list[Check]:
    """Every check as it is now; one that found something before, and nothing now, is mended and says what it was."""
    was = {check.name: replace(check, mended=True, remedy="") for check in before if check.faults}
    checks = [check if check.faults else was.get(check.name, check) for check in after]
    if saved is not None and checks[0].mended:
        counts, aside = saved
        rows = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        text = f"{checks[0].found}; saved {rows or 'nothing'}; the damaged file is kept as {aside.name}"
        lost = "" if counts.get("roots") else "mmsearch index FOLDER"
        checks[0] = replace(checks[0], found=text, remedy=lost)
    if kept:
        where = next(place for place, check in enumerate(checks) if check.name == ROWS)
        checks[where] = replace(checks[where], found=f"{checks[where].found}; {kept}")
    return checks
