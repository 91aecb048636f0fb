"""Whether the files of an indexed folder can be there, by what its disk shows."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from indexer.files.roots import as_known, device_of, offline_reason


@pytest.mark.parametrize(
    ("is_same_disk", "is_empty", "some_are_there", "reason"),
    [
        (True, False, False, None),
        (True, True, True, None),  # only hidden files, taken in by a .mmsearchignore
        (True, True, False, "is empty"),
        (False, True, False, "is empty"),
        (False, False, True, None),  # the number of a disk may change
        (False, False, False, "is on another device, without the files indexed there"),
    ],
)
def test_when_a_root_is_offline(
    tmp_path: Path, is_same_disk: bool, is_empty: bool, some_are_there: bool, reason: str | None
) -> None:
    (tmp_path / (".hidden" if is_empty else "a.jpg")).touch()
    device = device_of(tmp_path) + (not is_same_disk)
    assert offline_reason(tmp_path, device, lambda: some_are_there) == reason


def test_the_files_are_looked_for_only_where_the_folder_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert offline_reason(tmp_path, device_of(tmp_path), lambda: pytest.fail("not needed")) is None
    assert offline_reason(tmp_path, None, lambda: pytest.fail("never indexed before")) is None
    assert offline_reason(tmp_path / "absent", 1, lambda: pytest.fail("not needed")) == "is not there"
    assert offline_reason(tmp_path / "a.jpg", 1, lambda: pytest.fail("not needed")) == "is not there"


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="Windows gives a volume a number of its own")
def test_the_next_disk_in_the_same_socket_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = device_of(tmp_path)
    assert device_of(tmp_path) == before
    assert 0 <= before < 2**63, "it fits a column of the catalog"
    disk = os.statvfs(tmp_path)
    larger = os.statvfs_result((*disk[:2], disk.f_blocks + 1, *disk[3:]))
    monkeypatch.setattr(os, "statvfs", lambda _: larger)
    assert device_of(tmp_path) != before


def test_a_folder_by_the_spelling_on_record(tmp_path: Path) -> None:
    composed = tmp_path / unicodedata.normalize("NFC", "été")
    decomposed = tmp_path / unicodedata.normalize("NFD", "été")
    decomposed.mkdir()
    assert as_known(decomposed / "sub", [composed]) == composed / "sub", "a root that was recorded by the other form"
    assert as_known(composed, []) == decomposed, "as its folder lists it"
    assert as_known(tmp_path / "plain", [composed]) == tmp_path / "plain"


@pytest.mark.skipif(os.name == "nt", reason="one folder for both spellings")
def test_two_spellings_may_be_two_folders(tmp_path: Path) -> None:
    both = [tmp_path / unicodedata.normalize(form, "été") for form in ("NFC", "NFD")]
    for one in both:
        one.mkdir(exist_ok=True)
    if both[0].samefile(both[1]):
        pytest.skip("this disk takes both spellings for one")
    for one in both:
        assert as_known(one, both) == one
        assert as_known(one, [both[0]]) == one
