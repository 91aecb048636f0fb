"""A model on disk: what comes back at each precision, and that nothing damaged is taken for a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmsearch.errors import CheckpointError
from mmsearch.inference.load_model import load_model
from mmsearch.models.checkpoint import (
    SCALE,
    Architecture,
    Precision,
    build,
    load_notes,
    load_tensors,
    load_vae,
    pack,
    save_model,
    save_tensors,
    unpack,
)
from mmsearch.models.digest import read_description
from mmsearch.models.tokens import word_tokenizer
from mmsearch.models.vae import MultimodalVAE

# the image head's hidden layer has 400 x 300 weights: enough to be stored in int8
SMALL = Architecture(kind="backbone", latent_dim=8, hidden_dim=400, image_features=300, text_features=20)
SCRATCH = Architecture(kind="scratch", vocabulary=4, latent_dim=4)
LARGE = "encoders.image.head.hidden.weight"


@pytest.fixture
def vae() -> MultimodalVAE:
    torch.manual_seed(0)
    return build(SMALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model that `load_model` takes."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(["red", "blue"])
    return save_model(tmp_path / "model", build(SCRATCH), SCRATCH, name="small", tokenizer_json=tokenizer.to_str())


def test_float32_comes_back_bit_by_bit(vae: MultimodalVAE, tmp_path: Path) -> None:
    loaded, architecture = load_vae(save_model(tmp_path / "a" / "b", vae, SMALL, name="small"))
    assert architecture == SMALL
    assert not loaded.training
    state = loaded.state_dict()
    assert state.keys() == vae.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_fewer_bits_stay_within_their_rounding(vae: MultimodalVAE, precision: Precision, tmp_path: Path) -> None:
    folder = save_model(tmp_path, vae, SMALL, name="small", precision=precision)
    loaded = load_vae(folder)[0].state_dict()
    for name, value in vae.state_dict().items():
        error = (loaded[name] - value).abs()
        if value.ndim < 2:
            assert error.max() == 0, name  # biases, means and spreads stay as they are
        elif precision == "int8" and value.numel() >= 100_000:
            assert (error.amax(1) <= value.abs().amax(1) / 127 * 0.5001).all(), name
            assert error.max() > 0, name
        else:
            assert (error <= value.abs() * 2**-11 + 1e-7).all(), name
    assert read_description(folder)["precision"] == precision


def test_int8_takes_a_quarter_and_zero_rows_survive() -> None:
    weight = torch.randn(400, 300)
    weight[7] = 0
    packed = pack({"w": weight, "small": torch.randn(3, 5), "b": torch.randn(400)}, "int8")
    assert {name: tensor.dtype for name, tensor in packed.items()} == {
        "w": torch.int8, "w" + SCALE: torch.float32, "small": torch.float16, "b": torch.float32
    }  # fmt: skip
    assert packed["w"].abs().max() == 127
    unpacked = unpack(packed)
    assert unpacked.keys() == {"w", "small", "b"}
    assert all(value.dtype == torch.float32 for value in unpacked.values())
    assert unpacked["w"][7].abs().max() == 0
    convolution = torch.randn(400, 30, 3, 3)
    assert (unpack(pack({"c": convolution}, "int8"))["c"] - convolution).abs().max() < convolution.abs().max() / 200


def test_the_fingerprint_follows_weights_and_architecture_alone(vae: MultimodalVAE, tmp_path: Path) -> None:
    def fingerprint(name: str, model: MultimodalVAE, precision: Precision = "float32", **extra: float) -> str:
        folder = save_model(tmp_path / name, model, SMALL, name=name, precision=precision, extra=extra)
        return str(read_description(folder)["fingerprint"])

    first = fingerprint("first", vae)
    assert fingerprint("again", vae, temperature=0.1) == first
    assert fingerprint("halved", vae, "float16") != first
    with torch.no_grad():
        vae.get_parameter(LARGE)[0, 0] += 1e-3
    assert fingerprint("trained", vae) != first
    assert len(first) == 64


def rewrite(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    path = folder / "model.json"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def flip_one_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated weights": (cut_weights, "is damaged: sha256"),
    "one bit": (flip_one_bit, "is damaged: sha256"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "cannot be read"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "is damaged"),
    "truncated description": (lambda f: (f / "model.json").write_text('{"format": 1, '), "cannot be read"),
    "not UTF-8": (lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "a list": (lambda f: (f / "model.json").write_text("[1]"), "model"),
    "no architecture": (lambda f: rewrite(f, lambda d: d.pop("architecture")), "model"),
    "architecture of another type": (lambda f: rewrite(f, lambda d: d.update(architecture="small")), "model"),
    "no fingerprint": (lambda f: rewrite(f, lambda d: d.pop("fingerprint")), "fingerprint"),
    "another format": (lambda f: rewrite(f, lambda d: d.update(format=2)), "format 1"),
    "another latent size": (lambda f: rewrite(f, lambda d: d["architecture"].update(latent_dim=9)), "architecture"),  # type: ignore[attr-defined]
    "unknown kind": (lambda f: rewrite(f, lambda d: d["architecture"].update(kind="cubist")), "'cubist'"),  # type: ignore[attr-defined]
    "a size that is no number": (lambda f: rewrite(f, lambda d: d["architecture"].update(latent_dim="x")), ""),  # type: ignore[attr-defined]
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
    "truncated tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"version"'), "tokenizer.json"),
}  # fmt: skip


def test_the_model_loads_before_it_is_damaged(folder: Path) -> None:
    model = load_model(folder, "cpu")
    assert model.dim == 4
    assert model.embed_texts(["red", "blue"]).mu.shape == (2, 4)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line(damage: str, folder: Path) -> None:
    spoil, said = DAMAGE[damage]
    spoil(folder)
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, "cpu")
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert str(folder) in message


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.json is missing"):
        load_vae(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.json is missing"):
        load_model(tmp_path)


def test_tensors_of_training_are_whole_or_refused(tmp_path: Path) -> None:
    path, tensors = tmp_path / "last.safetensors", {"a": torch.randn(3, 4).T, "b": torch.zeros(())}
    save_tensors(path, tensors)
    assert list(tmp_path.iterdir()) == [path]  # nothing temporary stays
    assert load_notes(path) == {}
    save_tensors(path, tensors, {"progress": '{"epoch": 3}'})
    assert load_notes(path) == {"progress": '{"epoch": 3}'}
    loaded: dict[str, Tensor] = load_tensors(path)
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="train from the start"):
        load_tensors(path)
    with pytest.raises(CheckpointError, match="train from the start"):
        load_notes(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tensors(tmp_path / "absent.safetensors")
