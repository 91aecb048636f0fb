"""The two model folders of a tuning: the one it starts from, checked, and the one it leaves, whole or not at all.

In: a folder of `mmsearch train` or the shipped model; new heads. Out: a folder of the same kind, which search reads
with or without torch as it read the first. Next: `inference/load_model.py` runs it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from indexer.base.safetensors_header import tensor_places
from mmsearch.errors import CheckpointError, ModelError
from mmsearch.inference.onnx_model import OnnxModel
from mmsearch.inference.query_bank import QUERIES
from mmsearch.inference.torch_model import TorchModel
from mmsearch.models.checkpoint import Architecture, pack, save_model, unpack
from mmsearch.models.digest import read_description, seal
from mmsearch.models.vae import MultimodalVAE
from mmsearch.training.export.export import export
from mmsearch.tuning.fit import Heads

log = logging.getLogger(__name__)

_GRAPHS = ("image.onnx", "text.onnx")
_CARRIED = ("temperature", "backbone_fingerprint", "data")
_ROUNDING = 0.01  # of a vector's length: what graphs and torch may differ by


def checked_source(folder: Path) -> dict[str, Any]:
    """`model.json` of a model whose heads can be tuned.

    Raises:
        ModelError: it has none of its own, closed-form ones, or was trained without a trunk.
    """
    if not (folder / "model.json").exists():
        raise ModelError(
            f"model '{folder}' has no heads to tune; train some ('mmsearch train RECIPE --model {folder}') and run "
            "'mmsearch rebuild --model' with them first"
        )
    described = read_description(folder)
    if described.get("heads") == "linear":
        raise ModelError(f"the heads in {folder} are closed-form; run 'mmsearch heads' to fit them anew")
    if described["architecture"].get("kind") == "scratch":
        raise ModelError(
            f"{folder} was trained from nothing and has no trunk to keep; run 'mmsearch train' again instead"
        )
    return described


def tuned_before(folder: Path) -> dict[str, Any] | None:
    """What an earlier tuning noted in `folder`, or None where it may be written.

    Raises:
        ModelError: the folder holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        noted = read_description(folder).get("tuned")
    except CheckpointError as error:
        raise ModelError(f"{folder} is there and holds no model; name a new folder") from error
    if not isinstance(noted, dict):
        raise ModelError(f"{folder} holds another model; name a new folder")
    return noted


def as_stored(heads: Heads, described: Mapping[str, Any]) -> Heads:
    """The heads as they will be read back: rounded to the precision that the folder keeps."""
    return unpack(pack(heads, described.get("precision", "float32")))


def write(
    folder: Path,
    vae: MultimodalVAE,
    architecture: Architecture,
    source: Path,
    described: Mapping[str, Any],
    noted: Mapping[str, Any],
) -> None:
    """The model with its new heads, beside `noted`, what tells this tuning from another; renamed into place at last."""
    new = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(new, ignore_errors=True)
    tokenizer = source / "tokenizer.json"
    save_model(
        new,
        vae,
        architecture,
        name=f"{described['name']}-tuned",
        tokenizer_json=tokenizer.read_text(encoding="utf-8") if tokenizer.exists() else None,
        precision=described.get("precision", "float32"),
        extra={**{key: described[key] for key in _CARRIED if key in described}, "tuned": dict(noted)},
    )
    if all((source / graph).exists() for graph in _GRAPHS):
        _add_graphs(new, source)
    if (source / QUERIES).exists():  # the heads stay near the old ones, and with them what is near to any query
        shutil.copyfile(source / QUERIES, new / QUERIES)
    seal(new)
    os.replace(new, folder)


def _add_graphs(new: Path, source: Path) -> None:
    """The graphs hold no weights but places in the weights' file: they serve every file with the same places."""
    if tensor_places(source / "model.safetensors") == tensor_places(new / "model.safetensors"):
        for graph in source.glob("*.onnx"):
            shutil.copyfile(graph, new / graph.name)
        if _follow(new, source):
            return
    log.info("the graphs of %s do not fit the new weights; they are written anew", source)
    for graph in new.glob("*.onnx"):
        graph.unlink()
    again = export(new, new / "again", precision=read_description(new)["precision"])
    for graph in again.glob("*.onnx"):
        os.replace(graph, new / graph.name)
    shutil.rmtree(again)


def _follow(folder: Path, source: Path) -> bool:
    """Whether the graphs' vectors of a picture and a text went with the weights: to torch's, away from the source's."""
    graphs, before = (OnnxModel("", where, read_description(where)) for where in (folder, source))
    torch_model = TorchModel.load("", folder, "cpu")
    picture = np.random.default_rng(0).integers(0, 256, (1, graphs.side_px, graphs.side_px, 3), np.uint8)
    for found, old, right in (
        (graphs.encode_images(picture), before.encode_images(picture), torch_model.encode_images(picture)),
        (graphs.encode_texts(["a dog"]), before.encode_texts(["a dog"]), torch_model.encode_texts(["a dog"])),
    ):
        length, off = float(np.linalg.norm(right.mu)), float(np.linalg.norm(found.mu - right.mu))
        if not off <= max(_ROUNDING * length, 0.5 * float(np.linalg.norm(old.mu - right.mu))):
            return False
    return True


def key_of(described: Mapping[str, Any], captions_digest: str, settings: object) -> str:
    """Equal for the same weights, captions and settings: the same tuning; hex."""
    return hashlib.sha256(f"{described['fingerprint']}\n{captions_digest}\n{settings!r}".encode()).hexdigest()
