"""A graph in int8 arithmetic: padding in the convolution, weights and activations rounded to their ranges."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from mmsearch.training.export.int8 import fold_constants, join_pads, quantised


def padded_graph() -> onnx.ModelProto:
    """`mu = relu6(conv(pad(pixels)))`, the padding's widths cast and joined from constants, as the exporter writes."""
    kernel = (torch.arange(2 * 3 * 3 * 3).float().reshape(2, 3, 3, 3) - 27).numpy() / 20
    widths = numpy_helper.from_array(np.array([0, 0, 0, 1], np.int32), "half")
    nodes = [
        helper.make_node("Constant", [], ["starts"], value=widths),
        helper.make_node("Cast", ["starts"], ["long"], to=TensorProto.INT64),
        helper.make_node("Concat", ["long", "long"], ["widths"], axis=0),
        helper.make_node("Pad", ["pixels", "widths"], ["padded"]),
        helper.make_node("Conv", ["padded", "kernel"], ["map"], pads=[0, 0, 0, 0], name="conv"),
        helper.make_node("Clip", ["map", "low", "high"], ["mu"], name="clip"),
    ]
    bounds = [numpy_helper.from_array(np.float32(v), n) for n, v in (("low", 0.0), ("high", 6.0))]
    tensors = [numpy_helper.from_array(kernel, "kernel"), *bounds]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 6, 6])]
    outputs = [helper.make_tensor_value_info("mu", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "padded", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def output(proto: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["mu"], {"pixels": pixels})[0])


def test_padding_becomes_the_convolution_s_own() -> None:
    proto, pixels = padded_graph(), np.random.default_rng(0).random((2, 3, 6, 6), np.float32)
    before = output(proto, pixels)
    fold_constants(proto)
    join_pads(proto)
    assert [node.op_type for node in proto.graph.node] == ["Conv", "Clip"]
    assert helper.get_attribute_value(proto.graph.node[0].attribute[0]) == [0, 1, 0, 1]
    np.testing.assert_array_equal(output(proto, pixels), before)


def test_int8_rounds_weights_and_activations_to_their_ranges() -> None:
    pixels = np.random.default_rng(0).random((16, 3, 6, 6), np.float32)
    exact = output(padded_graph(), pixels)
    proto = quantised(padded_graph(), pixels)  # type: ignore[arg-type]
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("QuantizeLinear") >= 3  # pixels, kernel, map
    found = output(proto, pixels)
    step = exact.max() / 255
    assert 0 < np.abs(found - exact).max() < 6 * step
