"""Checksums, names for damaged files, and which system calls force a file to the disk."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from indexer.base.durable import aside_name, set_aside, sha256_of, sync
from indexer.base.errors import NotPlainFile


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    path.write_bytes(bytes(3 << 20))
    assert sha256_of(path) == hashlib.sha256(bytes(3 << 20)).hexdigest()


def test_a_damaged_file_keeps_its_content_under_another_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20260102T030405")
    path = tmp_path / "index-1.faiss"
    for number in range(3):
        path.write_bytes(bytes([number]))
        set_aside(path)
    names = ["index-1.faiss.bad-20260102T030405" + end for end in ("", "-2", "-3")]
    assert [(tmp_path / name).read_bytes() for name in names] == [b"\0", b"\1", b"\2"]
    assert sorted(one.name for one in tmp_path.iterdir()) == names
    assert f"{path} is damaged; kept as {names[0]}" in caplog.text
    set_aside(path)  # not there: nothing happens
    assert len(list(tmp_path.iterdir())) == 3


def test_the_name_of_another_file_is_not_taken_for_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    (tmp_path / "axb.bad-now").touch()
    assert aside_name(tmp_path / "a[x]b").name == "a[x]b.bad-now"
    (tmp_path / "a[x]b.bad-now").touch()
    assert aside_name(tmp_path / "a[x]b").name == "a[x]b.bad-now-2"


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folders")
def test_files_and_folders_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    for path in (tmp_path / "a", tmp_path):
        sync(path)
    assert synced == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "absent")


def test_a_link_is_set_aside_itself(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"precious")
    for target in ("outside", "nothing"):
        (tmp_path / "index-1.f16").symlink_to(tmp_path / target)
        set_aside(tmp_path / "index-1.f16")
        assert not (tmp_path / "index-1.f16").is_symlink()
    assert (tmp_path / "outside").read_bytes() == b"precious"
    assert sum(path.is_symlink() for path in tmp_path.iterdir()) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on Windows")
def test_only_plain_files_are_forced_to_the_disk(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(NotPlainFile):
            sync(tmp_path / name)
    sync(tmp_path)
