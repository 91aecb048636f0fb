"""Changes to an ONNX graph after its export: constants where ONNX Runtime wants them, weights out of the graph.

In: a graph as `torch.onnx` writes it. Out: the same computation, whose weights are places in `model.safetensors`.
Next: `int8.py`, `export.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from indexer.base.safetensors_header import tensor_places
from mmsearch.models.checkpoint import SCALE


def cast_constants(proto: Any) -> None:
    """Turn `CastLike` of a constant, as the exporter writes the bounds of ReLU6, into the constant itself.

    ONNX Runtime fuses a convolution with its activation, and keeps its own memory layout from one to the next, only
    where the bounds are constants. All arithmetic is float32, so that is the type.
    """
    from onnx import TensorProto, helper, numpy_helper

    constants = {node.output[0]: node for node in proto.graph.node if node.op_type == "Constant"}
    for node in proto.graph.node:
        if node.op_type == "CastLike" and node.input[0] in constants:
            found = helper.get_attribute_value(constants[node.input[0]].attribute[0])
            value = numpy_helper.to_array(found) if isinstance(found, TensorProto) else np.asarray(found)
            constant = numpy_helper.from_array(value.astype(np.float32), node.output[0])
            node.CopyFrom(helper.make_node("Constant", [], [node.output[0]], value=constant))


def point_to_safetensors(proto: Any, weights: Path) -> None:
    """Replace every initialiser that the safetensors file holds by a reference into that file.

    int8 tensors become `Cast` and `Mul` by their scales, which ONNX Runtime folds when it loads the graph.
    """
    from onnx import TensorProto, helper, numpy_helper

    places = tensor_places(weights)
    kinds = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "I8": TensorProto.INT8}
    graph, nodes, kept = proto.graph, [], []

    def reference(name: str, stored: str) -> Any:
        place = places[stored]
        tensor = TensorProto(
            name=name, data_type=kinds[place.dtype], dims=place.shape, data_location=TensorProto.EXTERNAL
        )
        for key, value in (("location", weights.name), ("offset", place.start), ("length", place.size_bytes)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    for tensor in graph.initializer:
        name = tensor.name
        if name not in places:
            kept.append(tensor)
            continue
        kind, shape = places[name].dtype, places[name].shape
        if kind == "F32":
            kept.append(reference(name, name))
            continue
        kept.append(reference(f"{name}.stored", name))
        wide = name if kind == "F16" else f"{name}.wide"
        nodes.append(helper.make_node("Cast", [f"{name}.stored"], [wide], to=TensorProto.FLOAT))
        if kind == "I8":
            kept.append(reference(f"{name}.scale", name + SCALE))
            column = np.array([shape[0]] + [1] * (len(shape) - 1), np.int64)
            kept.append(numpy_helper.from_array(column, f"{name}.column"))
            nodes.append(helper.make_node("Reshape", [f"{name}.scale", f"{name}.column"], [f"{name}.scales"]))
            nodes.append(helper.make_node("Mul", [wide, f"{name}.scales"], [name]))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + rest)
