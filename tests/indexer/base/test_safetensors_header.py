"""The places that a header names hold the tensors; a file that is no such file is an error of a known kind."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from indexer.base.safetensors_header import tensor_places


def test_every_tensor_is_where_its_place_says(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    tensors = {
        "a": dice.standard_normal((3, 5)).astype(np.float32),
        "b": dice.standard_normal(7).astype(np.float16),
        "c": np.zeros((0, 4), np.int8),
    }
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"made": "here"})
    places, data = tensor_places(path), path.read_bytes()
    assert {name: (place.dtype, place.shape) for name, place in places.items()} == {
        "a": ("F32", (3, 5)),
        "b": ("F16", (7,)),
        "c": ("I8", (0, 4)),
    }
    for name, place in places.items():
        assert data[place.start : place.start + place.size_bytes] == tensors[name].tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"words that are no header",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 10) + b'{"a": {}} ',
    ],
)
def test_what_is_no_such_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError):
        tensor_places(tmp_path / "x")


def header(**tensors: object) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


@pytest.mark.parametrize(
    "place",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 60]},  # longer than the file
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 16]},  # longer than its place
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]},
        {"dtype": "F33", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]},
    ],
)
def test_nothing_in_a_header_is_believed(tmp_path: Path, place: object) -> None:
    (tmp_path / "good").write_bytes(header(a={"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}))
    assert tensor_places(tmp_path / "good")["a"].size_bytes == 16
    (tmp_path / "x").write_bytes(header(a=place))
    with pytest.raises(ValueError):
        tensor_places(tmp_path / "x")


def test_a_header_that_would_take_gigabytes_as_objects_is_not_read(tmp_path: Path) -> None:
    text = b'{"a": [' + b"[]," * 2_000_000 + b"[]]}"
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ValueError, match="header of"):
        tensor_places(tmp_path / "x")
    deep = b"[" * 100_000
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(deep)) + deep)
    with pytest.raises(ValueError, match="no header"):
        tensor_places(tmp_path / "x")
