"""Photos in int8 arithmetic: a second graph beside `image.onnx`, faster on processors that multiply bytes.

In: a folder that `export.py` wrote and some training photos, which tell the range of every activation. Out:
`image-int8.onnx`. Its weights are those of the one safetensors file, like those of the other graphs, rounded when it is
loaded; it holds the ranges alone. Convolutions and what stands between them run in int8, pooling and head in float32.
`inference/onnx_model.py` takes it where the processor has the instructions for it, else `image.onnx`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from indexer.base.types import UInt8Array
from mmsearch.inference.preprocess import square
from mmsearch.models.checkpoint import load_vae
from mmsearch.models.digest import seal
from mmsearch.training.export.onnx_graph import point_to_safetensors

INT8_GRAPH = "image-int8.onnx"
_PHOTOS = 128
_BATCH = 8  # photos at a time while ranges are taken: every activation of them is held
_TRUNK = ("Conv", "Clip", "Add")
_FOLDED = ("Cast", "CastLike", "Concat", "Identity", "Reshape", "Slice", "Transpose", "Unsqueeze")


def export_int8(folder: Path, squares: UInt8Array) -> Path:
    """Write the int8 graph of photos into a folder of `export.py`.

    Args:
        folder: with `image.onnx` and `model.safetensors`.
        squares: training photos as `preprocess.square` gives them, uint8 `[n, side, side, 3]`; a hundred or so.

    Raises:
        CheckpointError: a folder that cannot be read.
    """
    import onnx

    weights = {name: value.numpy() for name, value in load_vae(folder)[0].state_dict().items()}
    proto = quantised(with_weights(folder / "image.onnx", weights), squares)
    point_to_safetensors(proto, folder / "model.safetensors")
    del proto.metadata_props[:]
    target = folder / INT8_GRAPH
    onnx.save(proto, str(target))
    seal(folder)
    return target


def some_squares(photos: Sequence[Path], side_px: int) -> UInt8Array:
    """Photos drawn from many, as the model sees them, uint8 `[n, side, side, 3]`; the same ones every time."""
    chosen = np.random.default_rng(0).permutation(len(photos))[:_PHOTOS]
    squares = []
    for i in sorted(chosen.tolist()):
        with Image.open(photos[i]) as image:
            squares.append(square(image, side_px))
    return np.stack(squares)


def with_weights(path: Path, weights: dict[str, Any]) -> Any:
    """A graph with float32 weights inside, in place of those that it reads from a safetensors file."""
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(str(path), load_external_data=False)
    graph = proto.graph
    given = {t.name.removesuffix(".stored") for t in graph.initializer} & weights.keys()
    parts = {f"{name}{part}" for name in given for part in ("", ".stored", ".scale", ".column", ".wide", ".scales")}
    kept = [t for t in graph.initializer if t.name not in parts]
    nodes = [node for node in graph.node if node.output[0] not in parts]
    del graph.initializer[:], graph.node[:], graph.value_info[:]
    graph.initializer.extend(kept + [numpy_helper.from_array(weights[name], name) for name in sorted(given)])
    graph.node.extend(nodes)
    return proto


def quantised(proto: Any, squares: UInt8Array) -> Any:
    """The same graph with the trunk in int8: weights by output channel, activations by the ranges seen on `squares`."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    fold_constants(proto)
    join_pads(proto)
    with tempfile.TemporaryDirectory() as temporary:
        plain, target = Path(temporary) / "plain.onnx", Path(temporary) / "int8.onnx"
        onnx.save(proto, str(plain))
        quantize_static(
            str(plain),
            str(target),
            _Batches(squares, proto.graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_TRUNK),
            nodes_to_exclude=_after_trunk(proto),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"AddQDQPairToWeight": True},  # weights stay float32 here: they come from the one file
        )
        return onnx.load(str(target))


def fold_constants(proto: Any) -> None:
    """Compute what depends on constants alone, as the widths of the padding do; weights are left as they are."""
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph, nodes = proto.graph, []
    known: dict[str, Any] = {}
    for node in graph.node:
        if node.op_type == "Constant" or (node.op_type in _FOLDED and all(name in known for name in node.input)):
            results = ReferenceEvaluator(node).run(None, {name: known[name] for name in node.input})
            known.update(zip(node.output, map(np.asarray, results), strict=True))
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in known.items() if name in used)


def join_pads(proto: Any) -> None:
    """Turn zero padding before a convolution into the convolution's own."""
    from onnx import helper, numpy_helper

    graph = proto.graph
    constants = {t.name: t for t in graph.initializer}
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    for conv in graph.node:
        pad = pads.get(conv.input[0]) if conv.op_type == "Conv" else None
        if pad is None or pad.input[1] not in constants:
            continue
        widths = numpy_helper.to_array(constants[pad.input[1]]).tolist()  # [2 * 4]: starts, then ends
        kept = [a for a in conv.attribute if a.name not in ("pads", "auto_pad")]
        del conv.attribute[:]
        conv.attribute.extend([*kept, helper.make_attribute("pads", [*widths[2:4], *widths[6:8]])])
        conv.input[0] = pad.input[0]
    used = {name for node in graph.node for name in node.input}
    nodes = [node for node in graph.node if node.op_type != "Pad" or node.output[0] in used]
    del graph.node[:]
    graph.node.extend(nodes)


def _after_trunk(proto: Any) -> list[str]:
    """Names of the nodes that follow the last convolution and its activation: pooling and head."""
    nodes = proto.graph.node
    last = max(i for i, node in enumerate(nodes) if node.op_type == "Conv")
    return [node.name for node in nodes[last + 2 :] if node.op_type in _TRUNK]


class _Batches:
    """Photos in batches, as ONNX Runtime's calibration asks for them."""

    def __init__(self, squares: UInt8Array, name: str) -> None:
        self.rest: Iterator[dict[str, UInt8Array]] = iter(
            [{name: squares[i : i + _BATCH]} for i in range(0, len(squares), _BATCH)]
        )

    def get_next(self) -> dict[str, UInt8Array] | None:
        """The next batch by the input's name; None at the end."""
        return next(self.rest, None)
