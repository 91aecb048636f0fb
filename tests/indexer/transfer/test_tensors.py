"""Vectors beside their rows: what does not fit, or lies about itself, is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from indexer.base.errors import LibraryCorrupt
from indexer.catalog.tables import BLOBS
from indexer.transfer.restore import restore
from tests.indexer.transfer.archives import refused, seal


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


def tensors(header: bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(shape: object, start: int, end: int, dtype: str = "F16") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def both(one: object, other: object) -> bytes:
    return json.dumps(dict(zip(BLOBS, (one, other), strict=True))).encode()


LIES = {
    "a header as long as the sea": tensors(b"{}", length=2**63),
    "longer than the file": tensors(b"{}", length=1 << 20),
    "more rows than bytes": tensors(both(entry([10**9, 16], 0, 32), entry([10**9, 16], 32, 64)), bytes(64)),
    "more bytes than the file": tensors(both(entry([10**9, 16], 0, 32 * 10**9), entry([0, 16], 0, 0)), bytes(64)),
    "the same bytes twice": tensors(both(entry([2, 16], 0, 64), entry([2, 16], 0, 64)), bytes(64)),
    "backwards": tensors(both(entry([2, 16], 64, 0), entry([2, 16], 64, 128)), bytes(128)),
    "a product beyond 64 bits": tensors(both(entry([2**62, 16], 0, 0), entry([2**62, 16], 0, 0))),
    "less than nothing": tensors(both(entry([-1, 16], 0, 0), entry([0, 16], 0, 0))),
    "no shape": tensors(both(entry([], 0, 2), entry([], 2, 4)), bytes(4)),
    "one dimension": tensors(both(entry([32], 0, 64), entry([32], 64, 128)), bytes(128)),
    "of another length": tensors(both(entry([2, 17], 0, 68), entry([2, 17], 68, 136)), bytes(136)),
    "another type": tensors(both(entry([2, 16], 0, 128, "F32"), entry([2, 16], 128, 256, "F32")), bytes(256)),
    "no type": tensors(both(entry([2, 16], 0, 64, "X"), entry([2, 16], 64, 128, "X")), bytes(128)),
    "a hundred thousand brackets": tensors(b"[" * 100_000),
    "words": tensors(b"not json"),
    "nothing": b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_vectors_whose_header_lies(archive: Path, tmp_path: Path, lie: str) -> None:
    (archive / "vectors-1.safetensors").write_bytes(LIES[lie])
    refused(seal(archive), tmp_path, "damaged|does not hold")
