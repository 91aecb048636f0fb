"""What is mended, what is kept since it cannot be made again, and crashes while it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.base.failpoints import REPAIR
from tests.fakes import FakeEncoder
from tests.indexer.crashing import KILLED, exit_code, ingest, start
from tests.indexer.maintenance.visits import MENDED, faults, mend, see, sql
from tests.indexer.snapshots import contents


def test_files_whose_folder_was_lost_find_their_vectors_again(library: Path, photos: Path) -> None:
    expected = contents(library)
    sql(library, "DELETE FROM roots")
    assert faults(see(library)) == {"references": 24 + 1}  # files, and a notice about captions.csv
    assert see(library, repair=True).sound
    encoder = FakeEncoder()
    ingest(library, photos, encoder)
    assert encoder.encoded == 0
    assert contents(library)[-1] == expected[-1]


def test_what_cannot_be_encoded_again_is_kept(library: Path, photos: Path) -> None:
    expected = contents(library)
    away = photos.rename(photos.with_name("away"))
    sql(library, "UPDATE vectors SET mu = CAST(x'0050' || substr(mu, 3) AS BLOB) WHERE kind = 2")
    assert faults(see(library)) == {"comparison": 3}
    report = see(library, repair=True)
    assert faults(report) == {"comparison": 3}
    away.rename(photos)
    assert see(library, repair=True).sound
    assert contents(library) == expected


@pytest.mark.parametrize("name", REPAIR)
def test_killed_while_it_mends(library: Path, photos: Path, name: str) -> None:
    expected = contents(library)
    sql(library, *MENDED["comparison"], *MENDED["counters"])
    assert exit_code(start(mend, library, photos, FakeEncoder(), name)) == KILLED
    assert see(library, repair=True).sound
    assert contents(library) == expected
