"""Forgetting, here alone and only when asked: files that are gone for good, with all that belongs to them.

In: an open catalog, a folder or everything. Out: `PruneReport`. A file is gone for good when the last index run missed
it, it is not there now, its root is online, and the nearest folder above it is neither empty (a mount point without
its drive looks like that) nor unreadable. Next: nothing; this is a leaf of `store.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from indexer.catalog import pruning
from indexer.catalog.assets import count_live, mark
from indexer.catalog.database import Catalog, Connection, live_model
from indexer.catalog.own_roots import OwnFolders, own_folders
from indexer.catalog.roots import Target, all_roots, known_targets, offline_reason
from indexer.catalog.scopes import chunked
from indexer.files.excludes import is_excluded_by_default
from indexer.search import index_files as generations

Fate = Literal["gone", "here", "held"]


@dataclass(frozen=True)
class PruneReport:
    """What `prune` removed, or with `dry_run` would remove. Counts are files.

    Attributes:
        removed: files forgotten; `paths` are they, sorted.
        held_back: gone, but from a folder that is empty or cannot be read; name that folder to forget them.
        present: hidden, yet on disk: excluded, or back since the last index run.
        offline: files of folders that are not there now.
        not_yours: files of folders that this user never indexed on this machine: they are not looked for.
    """

    removed: int
    held_back: int
    present: int
    offline: int
    dry_run: bool
    paths: tuple[Path, ...]
    not_yours: int = 0

    def to_dict(self) -> dict[str, object]:
        """The report as `mmsearch prune --json` prints it."""
        return {**asdict(self), "paths": [str(path) for path in self.paths]}


def prune(
    catalog: Catalog,
    where: Path,
    folder: Path | None = None,
    *,
    dry_run: bool = False,
    offline: bool = False,
    excluded: bool = False,
) -> PruneReport:
    """Forget files that are gone for good, below `folder` or everywhere.

    The caller holds the writer's lock, except for a dry run.

    Args:
        offline: forget the roots at or below `folder` as a whole that are offline, disks that will not come back, and
            those that are not this user's.
        excluded: also forget what is on disk and hidden, since it is excluded now.

    Raises: LibraryError when nothing of `folder` is in the library.
    """
    with catalog.begin() as connection:
        targets = _targets(connection, folder)
        doomed: dict[int, Path] = {}
        forgotten: list[Target] = []
        counts = {"held": 0, "here": 0, "offline": 0, "not_yours": 0}
        own = own_folders(connection)
        for target in targets:
            found = None
            is_mine = bool(own.parts(target.root))
            if is_mine and offline_reason(connection, target.root) is None:
                found = _sorted_out(connection, target, own)
                if offline_reason(connection, target.root) is not None:  # pulled out while its files were looked for
                    found = None
            if found is not None:
                doomed.update(found["gone"] | (found["here"] if excluded else {}))
                counts["held"] += len(found["held"])
                counts["here"] += 0 if excluded else len(found["here"])
            elif offline:
                forgotten.append(target)
                every = pruning.files(connection, target, missing_only=False)
                doomed.update({number: target.root.path / rel_path for number, rel_path in every})
            else:
                counts["offline" if is_mine else "not_yours"] += count_live(connection, target)
    if not dry_run:
        _hide(catalog, where, doomed)
        for chunk in chunked(doomed):
            with catalog.begin() as connection:
                pruning.delete_files(connection, chunk)
        for target in forgotten:
            with catalog.begin() as connection:
                pruning.delete_root(connection, target)
    shown, kept = tuple(sorted(doomed.values())), (counts["held"], counts["here"], counts["offline"])
    return PruneReport(len(doomed), *kept, dry_run, shown, counts["not_yours"])


def _targets(connection: Connection, folder: Path | None) -> list[Target]:
    if folder is None:
        return [Target(root, "", ()) for root in all_roots(connection)]
    return known_targets(connection, folder)


def _sorted_out(connection: Connection, target: Target, own: OwnFolders) -> dict[Fate, dict[int, Path]]:
    """The hidden files of an online root that are this user's, by what became of them."""
    found: dict[Fate, dict[int, Path]] = {"gone": {}, "here": {}, "held": {}}
    bare: dict[str, bool] = {}
    for number, rel_path in pruning.files(connection, target, missing_only=True):
        if own.hold(target.root, rel_path):
            found[_fate(target, rel_path, bare)][number] = target.root.path / rel_path
    return found


def _fate(target: Target, rel_path: str, bare: dict[str, bool]) -> Fate:
    """What became of a file; `bare` remembers the folders looked at."""
    try:
        os.lstat(target.root.path / rel_path)
        return "here"
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return "held"
    above = rel_path.rpartition("/")[0]
    while above and not os.path.lexists(target.root.path / above):
        above = above.rpartition("/")[0]
    if not above:
        return "gone"
    if above not in bare:
        bare[above] = _is_bare(target.root.path / above)
    named = target.prefix == above or target.prefix.startswith(above + "/")
    return "held" if bare[above] and not named else "gone"


def _is_bare(folder: Path) -> bool:
    """Whether a folder is empty, unreadable, or a link that leads nowhere."""
    try:
        with os.scandir(folder) as listing:
            return all(is_excluded_by_default(entry.name) for entry in listing)
    except OSError:
        return True


def _hide(catalog: Catalog, where: Path, doomed: Iterable[int]) -> None:
    """Take them out of the index first: an index file or a reader that is behind learns of it by rows that change."""
    with catalog.begin() as connection:
        model = live_model(connection)
        if model is None:
            return
        mark(connection, list(doomed), missing=True)
    generations.refresh(catalog, where / generations.VECTORS_FOLDER, model)
