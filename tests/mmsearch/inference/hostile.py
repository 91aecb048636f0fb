"""Model folders as nobody should send them, each a copy of the one that ships with one thing changed.

In: a folder to write to. Out: the folder, whose `model.json` agrees with all that is in it. Next: `test_trial.py`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmsearch.inference.load_model import PRETRAINED
from mmsearch.models.digest import fingerprint, seal

SHIPPED = PRETRAINED / "default"


def copy_of_the_default_model(folder: Path) -> Path:
    shutil.copytree(SHIPPED, folder)
    return folder


def endless_graph(folder: Path) -> None:
    """A loop whose condition stays true."""
    from onnx import TensorProto, helper

    rounds = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    going, still = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("going", "still"))
    value, more = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 256]) for name in ("value", "more"))
    steps = [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("Identity", ["value"], ["more"])]
    body = helper.make_graph(steps, "body", [rounds, going, value], [still, more])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1, 256], [0.0] * 256)
    most = helper.make_tensor("most", TensorProto.INT64, [], [2**62])
    nodes = [
        helper.make_node("Loop", ["most", "yes", "zero"], ["mu"], body=body),
        helper.make_node("Identity", ["zero"], ["logvar"]),
    ]
    _write(folder, nodes, [yes, zero, most])


def large_graph(folder: Path) -> None:
    """One picture becomes six gigabytes."""
    from onnx import TensorProto, helper

    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, 1_500_000_000])
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["mu"], value=value),
        helper.make_node("ConstantOfShape", ["shape"], ["logvar"], value=value),
    ]
    _write(folder, nodes, [shape])


def _write(folder: Path, nodes: list[Any], constants: list[Any]) -> None:
    import onnx
    from onnx import TensorProto, helper

    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", "h", "w", 3])
    found = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("mu", "logvar")]
    graph = helper.make_graph(nodes, "graph", [pixels], found, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for name in ("image.onnx", "image-int8.onnx"):
        onnx.save(model, str(folder / name))
    seal(folder)


def doubling_tokenizer(folder: Path, letter: str = "a") -> None:
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    double = {"type": "Replace", "pattern": {"String": letter}, "content": 2 * letter}
    described["normalizer"] = {"type": "Sequence", "normalizers": [described["normalizer"], *[double] * 40]}
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    seal(folder)


def million_wide_heads(folder: Path) -> None:
    _describe(folder, lambda described: described["architecture"].update(hidden_dim=1_000_000))


def long_header(folder: Path) -> None:
    """Weights with a header of 80 MB, which as Python objects takes gigabytes."""
    (folder / "model.safetensors").unlink()
    header = b'{"a": [' + b"[]," * 27_000_000 + b"[]]}"
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    reweighed(folder)


def sparse_weights(folder: Path) -> None:
    """Thirty gigabytes of nothing, which take no room on disk."""
    (folder / "model.safetensors").unlink()
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(30 << 30)


def reweighed(folder: Path) -> None:
    """Note the weights that are there now."""
    import hashlib

    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    _describe(folder, lambda described: described.update(weights_sha256=digest))


def _describe(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    change(described)
    path.write_text(json.dumps(described | {"fingerprint": fingerprint(described)}), encoding="utf-8")


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """The file of that name as something else."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


HOSTILE: dict[str, Callable[[Path], None]] = {
    "endless graph": endless_graph,
    "graph of six gigabytes": large_graph,
    "forty doubling normalizers": doubling_tokenizer,
    "forty doublings of a letter that is not tried": lambda folder: doubling_tokenizer(folder, "ʬ"),
    "heads of a million": million_wide_heads,
    "long header": long_header,
    "sparse weights": sparse_weights,
    **{f"{name} as a pipe": replaced(name, os.mkfifo) for name in ("model.json", "tokenizer.json", "image.onnx")},
    "weights as a pipe": replaced("model.safetensors", os.mkfifo),
    **{
        f"{name} as /dev/zero": replaced(name, lambda path: path.symlink_to("/dev/zero"))
        for name in ("model.json", "tokenizer.json", "queries.safetensors", "model.safetensors")
    },
    "a link to another file": replaced("tokenizer.json", lambda path: path.symlink_to("/etc/passwd")),
    "deep description": lambda folder: (folder / "model.json").write_text("[" * 2_000_000) and None,
}
