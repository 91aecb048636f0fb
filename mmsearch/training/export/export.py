"""A trained model as it ships: weights in int8 or float16, and ONNX graphs that read them from the same file.

In: a model folder of `run.py`. Out: a folder with `model.safetensors`, `model.json`, `tokenizer.json` and the graphs
`image.onnx` and `text.onnx`, which hold no weights: their initialisers point into the safetensors file, where torch
reads them too, so that there is one copy and no way to differ. int8 weights are turned to float32 when a graph is
loaded, and these two graphs compute in float32. Next: `int8.py`, a third graph beside them for processors that compute
in int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from mmsearch.models.checkpoint import Precision, load_vae, save_model
from mmsearch.models.digest import read_description, seal
from mmsearch.models.vae import ImageEncoder, MultimodalVAE
from mmsearch.training.export.int8 import INT8_GRAPH, export_int8, some_squares
from mmsearch.training.export.onnx_graph import cast_constants, point_to_safetensors

_OPSET = 18
_KEPT = ("temperature", "validation_mean_recall", "data", "metrics")


def export(
    source: Path,
    target: Path,
    *,
    precision: Precision = "int8",
    photos: Sequence[Path] = (),
) -> Path:
    """Write the shipped form of a trained model.

    Args:
        source: a folder written by `mmsearch train` (architecture `pretrained`).
        target: the folder to write.
        precision: of the stored matrices.
        photos: of training. With precision `int8`, some of them tell the ranges of the graph that computes in int8
            (`int8.py`); without them there is none.

    Raises:
        CheckpointError: a source that cannot be read.
    """
    vae, architecture = load_vae(source)
    described = read_description(source)
    tokenizer_json = (source / "tokenizer.json").read_text(encoding="utf-8")
    extra = {k: described[k] for k in _KEPT if k in described}
    name = str(described["name"])
    save_model(target, vae, architecture, name=name, tokenizer_json=tokenizer_json, precision=precision, extra=extra)
    stored, _ = load_vae(target)  # what the graphs will compute with: the weights as stored
    side = architecture.side_px
    pixels = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    _export_graph(_ImageGraph(stored), pixels, "pixels", target / "image.onnx", {0: "n"})
    ids = torch.ones(2, 7, dtype=torch.int64)
    _export_graph(_TextGraph(stored), ids, "ids", target / "text.onnx", {0: "n", 1: "t"})
    (target / INT8_GRAPH).unlink(missing_ok=True)  # of other weights
    if precision == "int8" and photos:
        export_int8(target, some_squares(photos, side))
    seal(target)
    return target


class _ImageGraph(nn.Module):
    """uint8 `[n, side, side, 3]` -> mu, logvar."""

    def __init__(self, vae: MultimodalVAE) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"image": vae.encoders["image"]})

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        encoder = cast(ImageEncoder, self.encoders["image"])
        encoding = encoder(pixels.permute(0, 3, 1, 2).float())
        return encoding.mu, encoding.logvar


class _TextGraph(nn.Module):
    """int64 ids `[n, t]` -> mu, logvar."""

    def __init__(self, vae: MultimodalVAE) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"text": vae.encoders["text"]})

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        encoding = self.encoders["text"](ids)
        return encoding.mu, encoding.logvar


def _export_graph(module: nn.Module, example: Tensor, name: str, path: Path, dynamic: dict[int, str]) -> None:
    """Export one graph and move its weights out."""
    import onnx

    program = torch.onnx.export(
        module.eval(),
        (example,),
        dynamo=True,
        opset_version=_OPSET,
        input_names=[name],
        output_names=["mu", "logvar"],
        dynamic_shapes=({d: torch.export.Dim(label, min=1, max=4096) for d, label in dynamic.items()},),
        optimize=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    cast_constants(proto)
    point_to_safetensors(proto, path.parent / "model.safetensors")
    for part in (*proto.graph.node, proto.graph, proto):
        del part.metadata_props[:]  # the exporter writes stack traces with paths of the machine
    onnx.save(proto, str(path))
