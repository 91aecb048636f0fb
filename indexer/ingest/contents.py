"""Contents that have a vector already: where else a file with the same bytes is, or was until it moved.

In: files whose content is on record. Out: the row of a file that has left its path, which is the moved file's row, or
the vector for one more copy. Contents are looked up by the batch and kept for the next one, and a file that is found at
its path is not looked for again: a run over many copies of few contents would do little else. Next: `sidecars.py`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from indexer.base.types import Modality, Model
from indexer.catalog import assets, metadata, vectors
from indexer.catalog.assets import Description
from indexer.catalog.database import Connection
from indexer.catalog.own_roots import Standing, standing
from indexer.catalog.roots import Root, Target
from indexer.catalog.vectors import Blobs, Donor
from indexer.decoding.metadata import Metadata
from indexer.ingest.loader import Loaded
from indexer.ingest.plan import Job

KEPT: Final = 4096  # contents, about a kilobyte each; more than one batch has


@dataclass(frozen=True)
class Content:
    """What rows of the same content have in common: the vector, what is shown of it, what a picture says of itself."""

    blobs: Blobs
    description: Description
    said: Metadata | None  # None: never asked, or no picture


Key = tuple[Modality, bytes]  # and the hash
Lost = dict[Key, Content]  # content that lost its row in this run, and may turn up again
Known = TypeVar("Known")


class Contents:
    """What is known of contents while the files of one target are written."""

    def __init__(self, model: Model, target: Target, lost: Lost) -> None:
        self._model = model
        self._target = target
        self._lost = lost
        self._donors: dict[Key, list[Donor]] = {}  # files that may have left their path
        self._given: dict[Key, Content] = {}
        self._now: Standing | None = None

    def look_up(self, connection: Connection, reused: Collection[Loaded]) -> None:
        """Ask for the files that hold the contents of a batch, in one query; see which folders are there now."""
        keys = dict.fromkeys(map(_key, reused))
        fresh = [key for key in keys if key not in self._donors]
        if fresh:
            _make_room(self._donors, len(fresh), keep=keys)
            found = vectors.donors(connection, self._model, self._target, {content_hash for _, content_hash in fresh})
            self._donors.update((key, found.get(key, [])) for key in fresh)
        self._now = standing(connection) if any(self._donors[key] for key in keys) else None

    def take_gone(self, loaded: Loaded) -> Donor | None:
        """A file with this content that has left its path, in a root that is there without it; given out once.

        In a root that is not this user's nothing is looked for: what is there too is one more copy.
        """
        donors = self._donors.get(_key(loaded), [])
        while donors and self._now is not None:
            donor = donors.pop(0)
            root = next((one for one in self._now.online if one.id == donor.root_id), None)
            if root is not None and self._now.own.hold(root, donor.rel_path) and self._is_gone(root, donor, loaded):
                return donor
        return None

    def given(self, connection: Connection, loaded: Loaded) -> Content:
        """The vector for one more file with this content."""
        key = _key(loaded)
        content = self._given.get(key)
        if content is None:
            modality, content_hash = key
            holder = vectors.holder(connection, self._model, content_hash, modality)
            content = self._lost[key] if holder is None else content_of(connection, self._model, holder)
            assert content is not None
            self.keep(loaded, content)
        return content

    def keep(self, loaded: Loaded, content: Content) -> None:
        """This content has a vector from now on."""
        _make_room(self._given, 1)
        self._given[_key(loaded)] = content

    def lose(self, job: Job, content: Content) -> None:
        """Another content takes the row of this one, which may turn up again later in this run."""
        assert job.content_hash is not None
        self._lost[job.modality, job.content_hash] = content

    def _is_gone(self, root: Root, donor: Donor, loaded: Loaded) -> bool:
        old = root.path / donor.rel_path
        if not os.path.lexists(old):
            return True
        # Where the case of letters makes no difference, the old spelling still leads to the file; the scan missed it.
        return donor.is_missing and _is_same(old, self._target.root.path / loaded.job.rel_path)


def content_of(connection: Connection, model: Model, asset_id: int) -> Content | None:
    """The content of a file on record; None where it has no vector that can be used."""
    blobs = vectors.own(connection, model, asset_id)
    if blobs is None:
        return None
    said, shown = metadata.of_file(connection, asset_id), assets.description_of(connection, asset_id)
    if said is not None:  # what a sidecar of that file says is not the content's
        shown = replace(shown, taken_at=said.taken_at, camera=said.camera)
        shown = replace(shown, latitude_deg=said.latitude_deg, longitude_deg=said.longitude_deg)
    return Content(blobs, shown, said)


def _key(loaded: Loaded) -> Key:
    assert loaded.content_hash is not None
    return loaded.job.modality, loaded.content_hash


def _make_room(kept: dict[Key, Known], count: int, keep: Collection[Key] = ()) -> None:
    """Forget the oldest, so that no run over a million files keeps them all."""
    surplus = len(kept) + count - KEPT
    if surplus > 0:
        for key in [key for key in kept if key not in keep][:surplus]:
            del kept[key]


def _is_same(old: Path, new: Path) -> bool:
    try:
        return old.samefile(new)
    except OSError:
        return False
