"""What changed since last time, by name, size and time of modification alone: no file is opened here.

In: a scan and the catalog. Out: `Plan`: files to load, files that came back, files that are gone. Next: `loader.py`,
which loads; whether a file to load is new, changed, moved or merely touched shows by its content there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from indexer.base.types import Modality, Model
from indexer.catalog import assets
from indexer.catalog.database import Connection
from indexer.catalog.roots import Target
from indexer.files.kinds import is_remedied
from indexer.files.scan import Scan


@dataclass(frozen=True, slots=True)
class Job:
    """A file to load. `asset_id` and `content_hash` are those on record, None for a path never seen."""

    rel_path: str
    modality: Modality
    asset_id: int | None
    content_hash: bytes | None  # None also when the content must be encoded whatever it is


@dataclass
class Plan:
    """Everything `ingest` has to do about one target."""

    jobs: list[Job] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    unchanged: int = 0
    still_skipped: int = 0
    excluded: int = 0  # of those missing


def plan_for(connection: Connection, target: Target, scan: Scan, model: Model) -> Plan:
    """Compare a scan with the catalog's files below the same folder: one pass over each, nothing kept of what is same.

    A list of all rows would take half a kilobyte a file, three times what the scan itself does.
    """
    plan = Plan()
    left = {file.rel_path: file for file in scan.found if file.role in ("image", "text")}
    changed: dict[str, tuple[int, bool]] = {}  # path -> id, whether it has a vector
    unreadable = [unseen.rel_path for unseen in scan.unreadable if unseen.is_folder] + scan.outside
    for number, rel_path, is_missing, error, size_bytes, mtime_ns, is_encoded in assets.known_files(
        connection, target, model
    ):
        file = left.get(rel_path)
        if file is None:
            if not is_missing and not _at_or_below_any(rel_path, unreadable):
                plan.missing.append(number)
                plan.excluded += scan.excludes(rel_path)
            continue
        is_same = size_bytes == file.size_bytes and mtime_ns == file.mtime_ns
        if is_same and error is not None and not is_remedied(error):
            plan.still_skipped += 1
        elif is_same and error is None and is_encoded:
            plan.unchanged += 1
        else:
            changed[rel_path] = (number, is_encoded)
            continue
        del left[rel_path]
        if is_missing:
            plan.returned.append(number)
    hashes = assets.hashes_of(connection, [number for number, is_encoded in changed.values() if is_encoded])
    for rel_path, file in left.items():  # in the order of the scan
        known = changed[rel_path][0] if rel_path in changed else None
        content_hash = hashes.get(known) if known is not None else None
        plan.jobs.append(Job(rel_path, cast(Modality, file.role), known, content_hash))
    return plan


def _at_or_below_any(rel_path: str, folders: list[str]) -> bool:
    return any(not folder or rel_path == folder or rel_path.startswith(folder + "/") for folder in folders)
