"""Manifests that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.base.errors import LibraryCorrupt
from indexer.transfer.archive import MANIFEST
from indexer.transfer.restore import restore


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
