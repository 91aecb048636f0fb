"""What an archive holds, and that other programs read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from indexer.base.errors import LibraryError
from indexer.catalog.tables import TABLES
from indexer.transfer.archive import MANIFEST
from indexer.transfer.restore import restore
from tests.fakes import FakeEncoder
from tests.indexer.asking import Store


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


def test_every_table_but_the_cache_is_in_it(made: Path) -> None:
    manifest = json.loads((made / "archive" / MANIFEST).read_text())
    assert set(manifest["rows"]) == {table.name for table in TABLES}
    assert set(manifest["files"]) == {path.name for path in (made / "archive").iterdir()} - {MANIFEST}


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
