"""A model folder whose files are not those it was written with."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmsearch.errors import CheckpointError
from mmsearch.inference.load_model import PRETRAINED, load_model
from mmsearch.models.digest import check_file, fingerprint, read_description, seal

SHIPPED = PRETRAINED / "default"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    copy.mkdir()
    for path in SHIPPED.iterdir():
        (os.link if path.name == "model.safetensors" and _one_disk(path, copy) else shutil.copyfile)(
            path, copy / path.name
        )
    return copy


def _one_disk(first: Path, second: Path) -> bool:
    return first.stat().st_dev == second.stat().st_dev


def encode(folder: Path, name: str) -> None:
    model = load_model(folder, "cpu")
    if name.startswith("image"):
        model.encode_images(np.zeros((1, model.side_px, model.side_px, 3), np.uint8))
    else:
        model.encode_texts(["a dog"] * 5)  # so many go through the graph, one or two do not


GRAPHS_AND_TOKENIZER = sorted(json.loads((SHIPPED / "model.json").read_text())["files"])


def test_the_shipped_model_knows_its_files() -> None:
    there = {path.name for path in SHIPPED.iterdir()} - {
        "README.md",
        "LICENSE-WEIGHTS",
        "model.json",
        "model.safetensors",
    }
    assert set(GRAPHS_AND_TOKENIZER) == there


@pytest.mark.parametrize("name", ["text.onnx", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["one bit", "truncated", "gone"])
def test_a_damaged_file_is_refused_before_it_is_read(folder: Path, name: str, damage: str) -> None:
    encode(folder, name)
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "one bit":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncated":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=f"{name} (is damaged|cannot be read).*copy the model again") as caught:
        encode(folder, name)
    assert "\n" not in str(caught.value)


def test_a_description_with_another_architecture_is_refused(folder: Path) -> None:
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace('"max_tokens": 64', '"max_tokens": 65'))
    with pytest.raises(CheckpointError, match=r"model\.json is damaged"):
        load_model(folder, "cpu")


def test_a_folder_written_earlier_says_nothing_of_its_graphs(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"graph")
    check_file(tmp_path / "text.onnx", {"weights_sha256": "0"})
    (tmp_path / "model.json").write_text("{}")
    seal(tmp_path)
    described = json.loads((tmp_path / "model.json").read_text())
    check_file(tmp_path / "text.onnx", described)
    (tmp_path / "text.onnx").write_bytes(b"grapH")
    with pytest.raises(CheckpointError, match="is damaged"):
        check_file(tmp_path / "text.onnx", described)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_dim": 1_000_000}, "hidden_dim"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"side_px": -1}, "side_px"),
        ({"max_tokens": True}, "max_tokens"),
        ({"vocabulary": 1e9}, "vocabulary"),
        ({"trunk": ["b0"]}, "trunk"),
    ],
)
def test_sizes_are_whole_numbers_within_bounds(folder: Path, change: dict[str, object], said: str) -> None:
    path = folder / "model.json"
    described = json.loads(path.read_text())
    described["architecture"] |= change
    path.write_text(json.dumps(described | {"fingerprint": fingerprint(described)}))
    with pytest.raises(CheckpointError, match=f"cannot be read as a model.*{said}"):
        read_description(folder)


@pytest.mark.parametrize("missing", ["weights_sha256", "fingerprint", "architecture", "format"])
def test_a_description_without_one_of_its_parts_is_refused(folder: Path, missing: str) -> None:
    path = folder / "model.json"
    described = json.loads(path.read_text())
    del described[missing]
    path.write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="cannot be read as a model"):
        read_description(folder)
