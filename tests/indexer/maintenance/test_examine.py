"""Faults of every kind are found and said in words; mended, the library is as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.indexer.maintenance.visits import MENDED, faults, see, sql
from tests.indexer.snapshots import contents


@pytest.mark.parametrize("name", MENDED)
def test_a_fault_in_the_rows_is_found_and_mended(library: Path, name: str) -> None:
    expected = contents(library)
    sql(library, *MENDED[name])
    report = see(library)
    assert name in faults(report)
    assert not report.sound
    again = see(library, repair=True)
    assert again.sound, faults(again)
    assert [check.found for check in again.checks if check.mended and check.name == name]
    assert faults(see(library)) == {}
    assert contents(library) == expected
