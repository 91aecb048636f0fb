"""A graph without weights: its tensors are places in one safetensors file, at every precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor

from mmsearch.models.checkpoint import pack, unpack
from mmsearch.training.export.onnx_graph import point_to_safetensors


def weights() -> dict[str, Tensor]:
    """A matrix large enough for int8, a convolution that stays in 16 bits, a bias in 32."""
    torch.manual_seed(0)
    return {"large.weight": torch.randn(400, 300), "filter.weight": torch.randn(6, 3, 2, 2), "bias": torch.randn(400)}


def small_graph(initial: dict[str, Tensor]) -> onnx.ModelProto:
    """`mu = x @ large.T + bias + offset`, `map = conv(picture, filter)`; `offset` is no weight of the model."""
    nodes = [
        helper.make_node("Transpose", ["large.weight"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["biased"]),
        helper.make_node("Add", ["biased", "offset"], ["mu"]),
        helper.make_node("Conv", ["picture", "filter.weight"], ["map"]),
    ]
    tensors = [numpy_helper.from_array(value.numpy(), name) for name, value in initial.items()]
    tensors.append(numpy_helper.from_array(np.float32([0.25]), "offset"))
    places = {"x": ["n", 300], "picture": ["n", 3, 5, 5]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in places.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("mu", "map")]
    graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_graph_reads_its_weights_from_the_one_file(precision: str, tmp_path: Path) -> None:
    packed = pack(weights(), precision)  # type: ignore[arg-type]
    save_file(packed, tmp_path / "model.safetensors")
    proto = small_graph(weights())
    point_to_safetensors(proto, tmp_path / "model.safetensors")
    onnx.save(proto, str(tmp_path / "small.onnx"))
    assert (tmp_path / "small.onnx").stat().st_size < 4_000  # 480,000 bytes of weights are elsewhere
    held = {t.name for t in proto.graph.initializer if t.data_location != TensorProto.EXTERNAL}
    assert held <= {"offset", "large.weight.column"}
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    x, picture = torch.randn(3, 300), torch.randn(2, 3, 5, 5)
    mu, found_map = session.run(None, {"x": x.numpy(), "picture": picture.numpy()})
    stored = unpack(packed)
    np.testing.assert_allclose(mu, (x @ stored["large.weight"].T + stored["bias"] + 0.25).numpy(), atol=1e-4)
    np.testing.assert_allclose(found_map, torch.conv2d(picture, stored["filter.weight"]).numpy(), atol=1e-5)
    if precision == "int8":
        exact = (x @ weights()["large.weight"].T + stored["bias"] + 0.25).numpy()
        assert np.abs(mu - exact).max() > 1e-3  # the stored weights are used, not the ones the graph was made with
