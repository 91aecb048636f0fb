"""Only plain files that are what the manifest says come out of an archive."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.base.errors import LibraryCorrupt
from indexer.transfer import archive as format_
from indexer.transfer.archive import MANIFEST
from indexer.transfer.restore import restore
from tests.indexer.transfer.archives import refused


def pack(path: Path, archive: Path, change: Callable[[tarfile.TarInfo], None], extra: tarfile.TarInfo | None) -> Path:
    with tarfile.open(path, "w") as tar:
        for file in sorted(archive.iterdir()):
            member = tarfile.TarInfo(file.name)
            member.size = file.stat().st_size
            change(member)
            tar.addfile(member, io.BytesIO(file.read_bytes()) if member.isreg() else None)
        if extra is not None:
            tar.addfile(extra, io.BytesIO(b"x" * extra.size))
    return path


def special(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return member


@pytest.mark.parametrize(
    "extra",
    [
        special("../escaped", size=1),
        special("/tmp/mmsearch-escaped", size=1),
        special("a/../../escaped", size=1),
        special("..\\escaped", size=1),
        special("assets.parquet/../../escaped", size=1),
        special("./assets.parquet", size=1),
        special("assets.parquet", size=1),
        special("more.parquet", tarfile.SYMTYPE, "/etc/passwd"),
        special("more.parquet", tarfile.LNKTYPE, "assets.parquet"),
        special("more.parquet", tarfile.LNKTYPE, "/etc/passwd"),
        special("more.parquet", tarfile.CHRTYPE),
        special("more.parquet", tarfile.BLKTYPE),
        special("more.parquet", tarfile.FIFOTYPE),
        special("more.parquet", tarfile.DIRTYPE),
        special("model.pkl", size=1),
        special("", size=1),
    ],
    ids=lambda member: f"{member.name}-{member.type.decode()}",
)
def test_a_tar_that_holds_anything_else_is_refused_whole(made: Path, tmp_path: Path, extra: tarfile.TarInfo) -> None:
    inner = tmp_path / "deep" / "inner"
    inner.mkdir(parents=True)
    bad = pack(inner / "bad.tar", made / "archive", lambda member: None, extra)
    with pytest.raises(LibraryCorrupt):
        restore(bad, inner / "library")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        "deep",
        "deep/inner",
        "deep/inner/bad.tar",
    }
    assert not Path("/tmp/mmsearch-escaped").exists()


def test_a_member_that_is_a_link_is_not_followed(made: Path, tmp_path: Path, archive: Path) -> None:
    def link(member: tarfile.TarInfo) -> None:
        if member.name == "assets.parquet":
            member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0

    with pytest.raises(LibraryCorrupt, match="no plain file"):
        restore(pack(tmp_path / "bad.tar", archive, link, None), tmp_path / "library")
    outside = shutil.move(archive / "assets.parquet", tmp_path / "outside")
    for prepare in (
        lambda at: at.symlink_to(outside),
        os.mkfifo,
        Path.mkdir,
    ):
        prepare(archive / "assets.parquet")
        with pytest.raises(LibraryCorrupt, match="no plain file"):
            restore(archive, tmp_path / "library")
        (archive / "assets.parquet").rmdir() if prepare is Path.mkdir else (archive / "assets.parquet").unlink()
    with pytest.raises(LibraryCorrupt, match=r"assets\.parquet is missing"):
        restore(archive, tmp_path / "library")


def test_a_compressed_tar_is_not_unpacked(made: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as tar:
        tar.add(made / "archive", arcname=".")
    with pytest.raises(LibraryCorrupt):
        restore(tmp_path / "bomb.tar.gz", tmp_path / "library")


def test_an_archive_larger_than_the_disk(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 4711}))
    assert "where 4,711 are free" in refused(archive, tmp_path, "needs [0-9,]+ bytes")


def test_a_sparse_file_of_a_terabyte(archive: Path, tmp_path: Path) -> None:
    """Said to be as large as it is; the disk would be filled by nothing."""
    os.truncate(archive / "vectors-1.safetensors", 1 << 40)
    said = json.loads((archive / MANIFEST).read_text())
    said["files"]["vectors-1.safetensors"]["size_bytes"] = 1 << 40
    (archive / MANIFEST).write_text(json.dumps(said))
    refused(archive, tmp_path, r"needs 1,099,\d+,\d+,\d+ bytes")
