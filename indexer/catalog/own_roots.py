"""Which folders of a library are this user's, on this machine: only of these are files read unasked.

A library may come from another person, and its catalog names folders. It may name any folder of this machine. So files
are read only below what this user named here, by `mmsearch index FOLDER` or `mmsearch relocate`; that is remembered
outside of every library (`base/personal.py`). All other folders are strange: they are searched and shown, and nothing
here looks at the disk for them, since a folder may be a server on the network.

In: a snapshot of the catalog. Out: `Standing`, the folders as they are for this user now. A search asks here, too.
Next: `hits.py`, `../maintenance/status.py`, which ask.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from indexer.base import personal
from indexer.catalog.reader import read
from indexer.catalog.roots import Root, all_roots, offline_reason
from indexer.files.excludes import is_excluded_by_default

if TYPE_CHECKING:
    from indexer.catalog.reader import Snapshot

FACTS: Final = "roots"  # under which name they are remembered
FOLLOWS_LINKS: Final = "links"  # the value of a folder whose links may lead out of it
NAMED: Final = 3  # folders in a message


@dataclass(frozen=True)
class OwnFolders:
    """The folders of one library that this user named on this machine; True where links may lead out of them."""

    folders: Mapping[str, bool]

    def parts(self, root: Root) -> tuple[str, ...]:
        """The parts of a root that are this user's: ('',) is all of it, () nothing."""
        top = str(root.path)
        if top in self.folders:
            return ("",)
        above = top.rstrip(os.sep) + os.sep
        return tuple(one.removeprefix(above).replace(os.sep, "/") for one in self.folders if one.startswith(above))

    def hold(self, root: Root, rel_path: str) -> bool:
        """Whether a file of a root, or a part of it, is this user's."""
        return any(not part or rel_path == part or rel_path.startswith(part + "/") for part in self.parts(root))

    def hold_path(self, path: Path) -> bool:
        """The same of an absolute path, as it is on record."""
        return any(str(one) in self.folders for one in (path, *path.parents))

    def follow_links(self, root: Root) -> bool:
        """Whether links may lead out of a root: where the user said so of all that is the user's of it."""
        parts = self.parts(root)
        return bool(parts) and all(self.folders[str(root.path / part)] for part in parts)


@dataclass(frozen=True)
class Standing:
    """The roots of a library, for this user now."""

    own: OwnFolders
    online: tuple[Root, ...]  # the user's, wholly or in part, and there
    offline: Mapping[Root, str]  # the user's, and why they cannot be there
    strange: tuple[Root, ...]  # not looked at

    @property
    def paths(self) -> dict[int, Path]:
        """The roots that are online, by id."""
        return {root.id: root.path for root in self.online}

    @property
    def whole(self) -> dict[int, Path]:
        """Those of them that are wholly the user's."""
        return {root.id: root.path for root in self.online if self.own.parts(root) == ("",)}


def standing(connection: Snapshot, roots: Sequence[Root] | None = None) -> Standing:
    """Look at the folders that are this user's, and at no other; of some `roots` only, else of all."""
    own = own_folders(connection)
    everything = all_roots(connection) if roots is None else roots
    mine = {root.id: bool(own.parts(root)) for root in everything}
    strange = tuple(root for root in everything if not mine[root.id])
    reasons = {root: offline_reason(connection, root) for root in everything if mine[root.id]}
    online = tuple(root for root, reason in reasons.items() if reason is None)
    return Standing(own, online, {root: reason for root, reason in reasons.items() if reason is not None}, strange)


def own_folders(connection: Snapshot) -> OwnFolders:
    """What this user named of this library, on this machine."""
    mine, facts = _key(_library(connection), ""), personal.remembered(FACTS)
    return OwnFolders(
        {key.removeprefix(mine): value == FOLLOWS_LINKS for key, value in facts.items() if key.startswith(mine)}
    )


def name(connection: Snapshot, folder: Path, *, follow_links: bool | None = None) -> OwnFolders:
    """A person named a folder of this library, as it is on record: remember that; what is the user's from now on.

    Roots below it are named with it, where they plainly lie in it: not behind a link or a hidden folder, which a
    person who names the folder above does not see.

    Args:
        follow_links: whether links may lead out of the folder; None leaves that as it is.
    """
    own = own_folders(connection)
    below = [root.path for root in all_roots(connection) if folder in root.path.parents]
    for one in [folder, *(path for path in below if str(path) in own.folders or _is_plainly_below(path, folder))]:
        follows = own.folders.get(str(one), False) if follow_links is None else follow_links
        remember(connection, one, follows)
    return own_folders(connection)


def remember(connection: Snapshot, folder: Path, follow_links: bool = False) -> None:
    """This one folder is the user's."""
    personal.remember(FACTS, _key(_library(connection), str(folder)), FOLLOWS_LINKS if follow_links else "")


def left_out(roots: Iterable[Root]) -> str:
    """Which folders were not read, in words, and what to type; '' where there are none."""
    paths = [str(root.path) for root in roots]
    if not paths:
        return ""
    shown = ", ".join(paths[:NAMED]) + (f" and {len(paths) - NAMED} more" if len(paths) > NAMED else "")
    return f"not read, since you never indexed it on this machine: {shown}; 'mmsearch index {paths[0]}' takes it on"


def _key(library: str, folder: str) -> str:
    return "\0".join((personal.this_machine(), library, folder))


def _library(connection: Snapshot) -> str:
    """The folder that holds the catalog, without links: a copy of a library is another one."""
    query = "SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'"  # no text: it need not be UTF-8
    return os.path.realpath(os.path.dirname(os.fsdecode(read(connection, query)[0][0])))


def _is_plainly_below(path: Path, folder: Path) -> bool:
    below = path.relative_to(folder)
    hidden = any(is_excluded_by_default(part) for part in below.parts)
    return not hidden and os.path.realpath(path) == os.path.join(os.path.realpath(folder), below)
