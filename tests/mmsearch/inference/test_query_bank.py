"""The bank in a model's folder: there, not there, or damaged, which is said in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from indexer.search.query_bank import QueryBank, bank_of
from mmsearch.errors import CheckpointError
from mmsearch.inference.load_model import PRETRAINED, load_model
from mmsearch.inference.onnx_model import OnnxModel
from mmsearch.inference.query_bank import QUERIES, load_bank, rounded, save_banks
from mmsearch.models.digest import seal

DIM = 8
RNG = np.random.default_rng(0)
TEXT = QueryBank("text", rounded(RNG.random((5, DIM)).astype(np.float32)), np.full(5, 0.2, np.float32), 15.0, 0.25)
IMAGE = replace(TEXT, modality="image", level=-0.5)
DESCRIBED: dict[str, Any] = {"architecture": {"latent_dim": DIM}}


def sealed(folder: Path) -> dict[str, Any]:
    (folder / "model.json").write_text(json.dumps(DESCRIBED))
    seal(folder)
    return dict(json.loads((folder / "model.json").read_text()))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    save_banks(tmp_path, [TEXT, IMAGE])
    for bank in (TEXT, IMAGE):
        found = load_bank(tmp_path, sealed(tmp_path), bank.modality)
        assert found is not None
        assert (found.modality, found.sharpness, found.level) == (bank.modality, bank.sharpness, bank.level)
        np.testing.assert_allclose(found.centres, bank.centres, atol=1e-6)
        np.testing.assert_array_equal(found.shares, bank.shares)


def test_four_bits_a_number() -> None:
    """Wrong by at most half a step, which is a seventh of the row's largest; rounded twice is rounded once."""
    centres = np.random.default_rng(3).standard_normal((20, 64)).astype(np.float32)
    centres[3] = 0
    kept = rounded(centres)
    steps = np.abs(centres).max(axis=1) / 7
    assert (np.abs(kept - centres) <= 0.505 * steps[:, None] + 1e-6).all()
    assert len(np.unique(np.round(kept[0] / steps[0]))) > 8
    np.testing.assert_allclose(rounded(kept), kept, atol=1e-6)


def test_a_model_may_have_none_or_one(tmp_path: Path) -> None:
    assert load_bank(tmp_path, DESCRIBED, "text") is None
    save_banks(tmp_path, [IMAGE])
    assert load_bank(tmp_path, DESCRIBED, "text") is None
    assert load_bank(tmp_path, DESCRIBED, "image") is not None


def test_an_odd_number_of_dimensions(tmp_path: Path) -> None:
    odd = replace(TEXT, centres=rounded(TEXT.centres[:, :7]))
    save_banks(tmp_path, [odd])
    found = load_bank(tmp_path, {"architecture": {"latent_dim": 7}}, "text")
    assert found is not None
    np.testing.assert_allclose(found.centres, odd.centres, atol=1e-6)


@pytest.mark.parametrize("harm", ["flipped", "gone", "cut", "other"])
def test_a_damaged_bank_is_told(harm: str, tmp_path: Path) -> None:
    save_banks(tmp_path, [TEXT])
    described, path = sealed(tmp_path), tmp_path / QUERIES
    data = bytearray(path.read_bytes())
    if harm == "flipped":
        data[-3] ^= 1
        path.write_bytes(data)
    elif harm == "gone":
        path.unlink()
    elif harm == "cut":
        described.pop("files")  # of a folder that nobody sealed
        path.write_bytes(data[:-3])
    else:
        save_banks(tmp_path, [replace(TEXT, centres=np.ones((5, DIM + 2), np.float32))])
        described = sealed(tmp_path)
    with pytest.raises(CheckpointError, match=QUERIES) as caught:
        load_bank(tmp_path, described, "text")
    assert "again" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "lie",
    [
        {"scales": np.ones(4_000_000, np.float16)},  # as centres, four gigabytes
        {"scales": np.ones((5, 1), np.float16)},
        {"centres": np.ones((5, DIM // 2), np.float32)},
        {"centres": np.ones(5, np.uint8)},
        {"centres": np.ones((1 << 30, 0), np.uint8)},
        {"shares": np.full(5, np.nan, np.float32)},
        {"shares": np.ones((), np.float32)},
        {"sharpness": np.array([np.inf], np.float32)},
        {"level": np.zeros(0, np.float32)},
    ],
)
def test_what_a_bank_says_is_not_believed(lie: dict[str, np.ndarray], tmp_path: Path) -> None:
    save_banks(tmp_path, [TEXT])
    tensors = load_file(tmp_path / QUERIES) | {f"text.{name}": value for name, value in lie.items()}
    save_file(tensors, tmp_path / QUERIES)
    with pytest.raises(CheckpointError, match=QUERIES):
        load_bank(tmp_path, {"architecture": {"latent_dim": DIM}}, "text")


def test_a_bank_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / QUERIES).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="is larger than"):
        load_bank(tmp_path, {"architecture": {"latent_dim": DIM}}, "text")


def test_a_model_brings_its_bank(tmp_path: Path) -> None:
    """The same one with and without torch; without the file, none."""
    folder = tmp_path / "model"
    shutil.copytree(PRETRAINED / "default", folder)
    (folder / QUERIES).unlink(missing_ok=True)
    seal(folder)
    assert bank_of(load_model(folder, "cpu"), "text") is None
    dim = json.loads((folder / "model.json").read_text())["architecture"]["latent_dim"]
    bank = replace(TEXT, centres=rounded(np.ones((5, dim), np.float32)))
    save_banks(folder, [bank])
    seal(folder)
    before = OnnxModel(
        "default", PRETRAINED / "default", json.loads((PRETRAINED / "default" / "model.json").read_text())
    )
    model = load_model(folder, "cpu")
    assert model.fingerprint == before.fingerprint  # it changes no vector
    found = bank_of(model, "text")
    assert found is not None
    np.testing.assert_allclose(found.centres, bank.centres, atol=1e-6)
    assert bank_of(model, "image") is None
    torch_model = pytest.importorskip("mmsearch.inference.torch_model").TorchModel.load("", folder, "cpu")
    np.testing.assert_array_equal(bank_of(torch_model, "text").centres, found.centres)
