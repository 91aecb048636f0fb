"""A damaged database: what can be read goes into a new one, whatever bits did."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from indexer.base.errors import LibraryError, SchemaOutdated
from indexer.base.failpoints import SALVAGE
from indexer.store import CATALOG_FILE
from tests.fakes import FakeEncoder
from tests.indexer.crashing import KILLED, exit_code, ingest, start
from tests.indexer.maintenance.visits import faults, found_by, mend, see
from tests.indexer.snapshots import contents

FLIPS = 16


@pytest.mark.parametrize("seed", range(2))
def test_flipped_bits_in_the_database(library: Path, photos: Path, seed: int) -> None:
    """Whatever a bit or a few bytes do: after the doctor and the next run, every file is found as before."""
    dice = random.Random(seed)
    expected, path = contents(library), library / CATALOG_FILE
    sound = path.read_bytes()
    found = 0
    for number in range(FLIPS):
        data = bytearray(sound)
        place = dice.randrange(len(data)) if number % 4 else dice.randrange(100)
        if number % 2:
            data[place] ^= 1 << dice.randrange(8)
        else:
            data[place : place + 16] = dice.randbytes(len(data[place : place + 16]))
        path.write_bytes(data)
        try:
            report = see(library, repair=True)
            found += any(check.mended for check in report.checks)
            ingest(library, photos, FakeEncoder())
        except LibraryError as error:
            raise AssertionError(f"bit in byte {place}: {error}") from error
        assert found_by(contents(library)) == found_by(expected), f"bit in byte {place}"
        for leftover in library.glob(f"{CATALOG_FILE}?*"):
            leftover.unlink()
    assert found >= 2  # much of a small file is free space


@pytest.mark.parametrize("kept", [99, 4096, 0.3, 0.6, 0.95])
def test_a_truncated_database(library: Path, photos: Path, kept: float) -> None:
    expected, path = contents(library), library / CATALOG_FILE
    data = path.read_bytes()
    cut = data[: int(kept * len(data)) if isinstance(kept, float) else kept]
    path.write_bytes(cut)
    with pytest.raises(LibraryError):
        contents(library)
    assert list(faults(see(library))) == ["database"]
    report = see(library, repair=True)
    assert report.sound
    (aside,) = library.glob(f"{CATALOG_FILE}.bad-*")
    assert aside.read_bytes() == cut
    assert aside.name in report.checks[0].found
    ingest(library, photos, FakeEncoder())
    assert contents(library)[-1] == expected[-1]
    assert see(library).sound


def test_a_database_that_is_empty_is_told_from_a_damaged_one(library: Path) -> None:
    (library / CATALOG_FILE).write_bytes(b"")
    with pytest.raises(SchemaOutdated, match="is empty; run 'mmsearch index FOLDER' first"):
        see(library, repair=True)


@pytest.mark.parametrize("name", SALVAGE)
def test_killed_while_it_saves_what_can_be_read(library: Path, photos: Path, name: str) -> None:
    expected, path = contents(library), library / CATALOG_FILE
    path.write_bytes(path.read_bytes()[: -2 * 4096])
    assert exit_code(start(mend, library, photos, FakeEncoder(), name)) == KILLED
    assert see(library, repair=True).sound
    assert list(library.glob(f"{CATALOG_FILE}.bad-*"))
    assert not list(library.glob(f"{CATALOG_FILE}.new*"))
    ingest(library, photos, FakeEncoder())
    assert contents(library)[-1] == expected[-1]
