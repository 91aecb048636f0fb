"""Export and import: the same library on the other side, and archives that mean harm do none."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.transfer.restore import restore
from tests.fakes import FakeEncoder
from tests.indexer.crashing import ingest
from tests.indexer.snapshots import contents
from tests.indexer.transfer.archives import rewrite, seal


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
        ("models", "fingerprint", "../../victim", "fingerprint"),
        ("library", "change", 2**63 - 1, "change"),
        ("library", "generation", -1, "generation"),
        ("assets", "size_bytes", -1, "size_bytes"),
        ("assets", "width_px", 2**62, "width_px"),
        ("captions", "text", "word " * 300_000, "text"),
        ("about", "latitude_deg", 1e300, "latitude_deg"),
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
