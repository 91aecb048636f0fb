from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from indexer.base import compared


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(compared, "FROM_BYTES", 4)
    monkeypatch.setattr(compared, "SETTLED_S", -1.0)
    path = tmp_path / "index-1.f16"
    path.write_bytes(b"vectors")
    compared.remember(path, "a" * 64, path.stat())
    return path


def test_a_file_is_known_until_somebody_writes(file: Path) -> None:
    assert compared.is_known(file, "a" * 64)
    assert not compared.is_known(file, "b" * 64)
    assert not compared.is_known(file, "a" * 64, place=file.parent)
    stat = file.stat()
    time.sleep(0.02)  # one tick of its clock
    file.write_bytes(b"Vectors")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the time of change cannot be set back
    assert not compared.is_known(file, "a" * 64)


def test_another_file_of_the_same_name_is_not_known(file: Path, tmp_path: Path) -> None:
    stat = file.stat()
    (tmp_path / "other").write_bytes(b"Vectors")
    os.utime(tmp_path / "other", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(tmp_path / "other", file)
    assert not compared.is_known(file, "a" * 64)


def test_a_place_knows_the_last_file_only(file: Path) -> None:
    other = file.with_name("index-2.f16")
    other.write_bytes(b"vectors")
    for path in (file, other):
        compared.remember(path, "a" * 64, path.stat(), place=file.parent)
    assert not compared.is_known(file, "a" * 64, place=file.parent)
    assert compared.is_known(other, "a" * 64, place=file.parent)


def test_what_is_small_or_new_is_not_remembered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared, "SETTLED_S", 60.0)
    compared.remember(file, "b" * 64, file.stat())
    assert not compared.is_known(file, "b" * 64)
    monkeypatch.setattr(compared, "FROM_BYTES", 100)
    assert not compared.is_known(file, "a" * 64)


def test_a_home_that_cannot_be_written_is_no_matter(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(file))  # no folder
    compared.remember(file, "a" * 64, file.stat())
    assert compared.is_known(file, "a" * 64)  # as long as the process lasts
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
