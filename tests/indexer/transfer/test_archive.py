"""Export and import: the same library on the other side, and archives that mean harm do none."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.catalog.tables import TABLES
from indexer.store import Store
from indexer.transfer.archive import MANIFEST
from indexer.transfer.restore import restore
from tests.fakes import FakeEncoder, paint
from tests.indexer.crashing import ingest
from tests.indexer.folders import fill
from tests.indexer.snapshots import contents
from tests.indexer.test_crash import Crash, crash_at


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with everything in it, half way to another model, and its archive, both ways."""
    folder = tmp_path_factory.mktemp("made")
    fill(folder / "photos")
    paint(folder / "photos" / "gone.png", "red", seed=50)
    shutil.copy(folder / "photos" / "p00.png", folder / "photos" / os.fsdecode(b"caf\xe9.png"))
    ingest(folder / "library", folder / "photos", FakeEncoder())
    (folder / "photos" / "gone.png").unlink()
    ingest(folder / "library", folder / "photos", FakeEncoder())
    with pytest.MonkeyPatch.context() as patch, Store.open(folder / "library") as store:
        with crash_at(patch, 6, after=True), pytest.raises(Crash):
            store.rebuild(FakeEncoder(name="other", seed=4, dim=24), batch_size=4)
        store.export(folder / "archive")
        store.export(folder / "archive.tar")
    return folder


def seal(archive: Path) -> Path:
    """Give a manifest the checksums of files that were changed, as somebody who means harm would."""
    manifest = json.loads((archive / MANIFEST).read_text())
    for name in manifest["files"]:
        data = (archive / name).read_bytes()
        manifest["files"][name] = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (archive / MANIFEST).write_text(json.dumps(manifest))
    return archive


@pytest.fixture
def archive(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "archive", tmp_path / "archive")
    return tmp_path / "archive"


@pytest.mark.parametrize("name", ["archive", "archive.tar"])
def test_there_and_back(made: Path, tmp_path: Path, name: str) -> None:
    report = restore(made / name, tmp_path / "library")
    assert contents(tmp_path / "library") == contents(made / "library")
    assert report.files == 26
    assert sorted(path.name for path in (tmp_path / "library").iterdir()) == ["catalog.sqlite", "vectors"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    encoder = FakeEncoder()
    ingest(tmp_path / "library", made / "photos", encoder)
    assert encoder.encoded == 0


def test_other_programs_read_it(made: Path) -> None:
    rows = pq.read_table(made / "archive" / "assets.parquet").to_pylist()
    assert b"caf\xe9.png" in {row["rel_path"] for row in rows}
    speaks = pq.read_table(made / "archive" / "vectors.parquet").to_pylist()
    tensors = load_file(made / "archive" / "vectors-1.safetensors")
    asset = next(row["id"] for row in rows if row["rel_path"] == b"p05.png")
    (row,) = (one for one in speaks if (one["asset_id"], one["role"], one["model_id"]) == (asset, "own", 1)
              and one["caption_id"] is None)  # fmt: skip
    expected = FakeEncoder().embed_images([made / "photos" / "p05.png"])
    np.testing.assert_allclose(tensors["mu"][row["row"]], expected.mu[0], rtol=1e-3, atol=0.02)
    np.testing.assert_allclose(tensors["logvar"][row["row"]], expected.logvar[0], rtol=1e-3, atol=0.02)
    half_way = load_file(made / "archive" / "vectors-2.safetensors")["mu"]
    assert half_way.dtype == np.float16
    assert half_way.shape[1] == 24
    assert 0 < len(half_way) < len(tensors["mu"])
    assert {path.suffix for path in (made / "archive").iterdir()} == {".json", ".parquet", ".safetensors"}


def test_nothing_is_written_over(made: Path, tmp_path: Path) -> None:
    with Store.open(made / "library") as store:
        for dest in ("archive", "archive.tar", "photos"):
            with pytest.raises(LibraryError, match="is there already"):
                store.export(made / dest)
        (tmp_path / "file").write_text("x")
        with pytest.raises(LibraryError, match="cannot be"):
            store.export(tmp_path / "file" / "below.tar")
    with pytest.raises(LibraryError, match="is there already"):
        restore(made / "archive", made / "library")
    with pytest.raises(LibraryError, match="mmsearch export"):
        restore(tmp_path / "absent.tar", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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


def rewrite(archive: Path, table: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = archive / f"{table}.parquet"
    schema = pq.read_schema(path)
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


@pytest.mark.parametrize(
    ("table", "column", "value", "words"),
    [
        *[
            ("assets", "rel_path", path, "leads out")
            for path in (b"../x.png", b"/etc/passwd", b"a/../../x", b"a//b", b".")
        ],
        ("assets", "rel_path", b"a\0b", "leads out"),
        ("captions", "source", b"../../captions.csv", "leads out"),
        ("notices", "rel_path", b"..", "leads out"),
        ("roots", "path", b"relative", "leads out"),
        ("roots", "path", b"/a/../b", "leads out"),
        ("assets", "state", "gone", "assets.state is 'gone'"),
        ("assets", "modality", "sound", "assets.modality"),
        ("vectors", "kind", 7, "vectors.kind"),
        ("vectors", "row", 0, "not of one making"),
        ("vectors", "model_id", 99, "model 99"),
        ("vectors", "asset_id", 10**6, "FOREIGN KEY"),
        ("captions", "asset_id", 10**6, "FOREIGN KEY"),
        ("assets", "root_id", 10**6, "FOREIGN KEY"),
        ("library", "model_id", 10**6, "FOREIGN KEY"),
        ("library", "id", 2, "library.parquet"),
        ("models", "dim", 17, "17"),
        ("models", "name", None, "NOT NULL"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    archive: Path, tmp_path: Path, table: str, column: str, value: object, words: str
) -> None:
    done: list[int] = []

    def change(row: dict[str, Any]) -> None:
        if not done or column == "row":
            row[column] = value
            done.append(1)

    rewrite(archive, table, change)
    with pytest.raises(LibraryCorrupt, match=words):
        restore(seal(archive), tmp_path / "library")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_vectors_that_do_not_fit_are_refused(archive: Path, tmp_path: Path) -> None:
    path = archive / "vectors-1.safetensors"
    whole = load_file(path)
    nan = whole["mu"].copy()
    nan[3, 2] = np.nan
    for tensors, words in (
        ({**whole, "mu": nan}, "no number"),
        ({name: one[:-1] for name, one in whole.items()}, "not of one making"),
        ({name: np.concatenate([one, one[:1]]) for name, one in whole.items()}, "without a row"),
        ({name: one.astype(np.float32) for name, one in whole.items()}, "float16"),
        ({**whole, "logvar": whole["logvar"][:-1]}, "float16"),
        ({"mu": whole["mu"]}, "damaged"),
    ):
        save_file({name: np.ascontiguousarray(one) for name, one in tensors.items()}, path)
        with pytest.raises(LibraryCorrupt, match=words):
            restore(seal(archive), tmp_path / "library")
    path.write_bytes(b"\x80\x04\x95" + b"not a pickle, and not read as one")
    with pytest.raises(LibraryCorrupt, match="damaged"):
        restore(seal(archive), tmp_path / "library")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "is not one"),
        (b"[]", "format"),
        (b'{"format": 2}', "reads 1"),
        (b'{"format": 1}', "KeyError"),
        (b"[" * 100_000, "is not one"),
        (b" " * ((1 << 20) + 1), "longer"),
        (b'{"format": 1, "schema": "9999", "rows": {}, "files": {}}', "update"),
        (
            b'{"format": 1, "schema": "0001", "rows": {}, "files": {"../x": {"size_bytes": 1, "sha256": ""}}}',
            "no archive",
        ),
        (b'{"format": 1, "schema": "0001", "rows": {"a": -1}, "files": {}}', "ValueError"),
    ],
)
def test_manifests_that_are_none(archive: Path, tmp_path: Path, said: bytes, words: str) -> None:
    (archive / MANIFEST).write_bytes(said)
    with pytest.raises(LibraryCorrupt, match=words):
        restore(archive, tmp_path / "library")


def test_every_table_but_the_cache_is_in_it(made: Path) -> None:
    manifest = json.loads((made / "archive" / MANIFEST).read_text())
    assert set(manifest["rows"]) == {table.name for table in TABLES}
    assert set(manifest["files"]) == {path.name for path in (made / "archive").iterdir()} - {MANIFEST}


def test_damage_anywhere_is_told_and_leaves_nothing(made: Path, tmp_path: Path) -> None:
    """One byte changed, or the end cut off, anywhere in the tar: refused, or the very same library."""
    whole = (made / "archive.tar").read_bytes()
    expected = contents(made / "library")
    dice = random.Random(3)
    refused = 0
    for number in range(24):
        at = dice.randrange(len(whole))
        bad = (
            whole[:at]
            if number % 4 == 0
            else whole[:at] + bytes([whole[at] ^ (1 << dice.randrange(8))]) + whole[at + 1 :]
        )
        (tmp_path / "bad.tar").write_bytes(bad)
        try:
            restore(tmp_path / "bad.tar", tmp_path / "library")
        except LibraryError:
            refused += 1
            assert not (tmp_path / "library").exists()
        else:
            assert contents(tmp_path / "library") == expected  # the byte lay in a tar's padding, or in a date
            shutil.rmtree(tmp_path / "library")
    assert refused > 9
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]
