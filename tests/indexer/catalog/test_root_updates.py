"""The rows of roots, and whether captions are in step with their files."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from indexer.catalog import root_updates
from indexer.catalog.roots import Root, all_roots


def test_a_root_is_added_once_with_the_bytes_of_its_name(connection: Connection) -> None:
    odd = Path("/photos/\udcff ü")
    added = root_updates.add(connection, odd)
    assert all_roots(connection) == [added] == [Root(added.id, odd, None)]
    root_updates.remember_device(connection, added, 77)
    assert all_roots(connection) == [Root(added.id, odd, 77)]
    with pytest.raises(IntegrityError):
        root_updates.add(connection, odd)


def test_pairing_is_due_until_it_is_done(connection: Connection, root: Root) -> None:
    other = root_updates.add(connection, root.path.with_name("other"))
    assert root_updates.pairing_of(connection, root) == (False, None)
    root_updates.set_pairing_due(connection, [root.id])
    assert root_updates.pairing_of(connection, root) == (True, None)
    assert root_updates.pairing_of(connection, other) == (False, None)
    root_updates.paired(connection, root, "digest")
    assert root_updates.pairing_of(connection, root) == (False, "digest")
    root_updates.set_pairing_due(connection, [root.id, other.id])
    root_updates.paired(connection, root, None)
    assert root_updates.pairing_of(connection, root) == (False, "digest"), "the digest stays"
    root_updates.set_pairing_due(connection, [other.id], due=False)
    assert root_updates.pairing_of(connection, other) == (False, None)
