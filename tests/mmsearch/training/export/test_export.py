"""What ships: graphs without weights that read one file, a smaller vocabulary, and the vectors of torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor

from mmsearch.data.scenes import render_scene
from mmsearch.inference import onnx_model as encoder
from mmsearch.inference.load_model import PRETRAINED, load_model
from mmsearch.inference.onnx_model import OnnxModel
from mmsearch.inference.preprocess import square
from mmsearch.inference.torch_model import TorchModel
from mmsearch.models.checkpoint import pack, unpack
from mmsearch.training.export.int8 import INT8_GRAPH, export_int8, fold_constants, join_pads, quantised
from mmsearch.training.export.onnx_graph import point_to_safetensors

SHIPPED = PRETRAINED / "default"


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


@pytest.mark.parametrize(("flags", "fast"), [("fpu avx2", False), ("avx512f avx512_vnni", True), ("avx_vnni", True)])
def test_int8_arithmetic_is_for_processors_that_name_it(
    flags: str, fast: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"model name: avx512_vnni\nflags\t\t: {flags}\n")
    encoder.multiplies_bytes.cache_clear()
    try:
        (tmp_path / "image-int8.onnx").touch()
        assert encoder.multiplies_bytes() is fast
        assert encoder._graph(tmp_path, "image").name == ("image-int8.onnx" if fast else "image.onnx")
        assert encoder._graph(tmp_path, "text").name == "text.onnx"
    finally:
        encoder.multiplies_bytes.cache_clear()


@pytest.mark.skipif(not (SHIPPED / "model.json").exists(), reason="this checkout holds no default model")
class TestShipped:
    def test_onnx_and_torch_give_the_same_vectors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(encoder, "multiplies_bytes", lambda: False)  # the graphs in float32 arithmetic
        onnx_model = load_model("default", "cpu")
        assert isinstance(onnx_model, OnnxModel)
        torch_model = TorchModel.load("default", SHIPPED, "cpu")
        assert torch_model.fingerprint == onnx_model.fingerprint
        pictures, captions = zip(*(render_scene(seed, side_px=200) for seed in range(5)), strict=True)
        texts = ["", "a dog", *(c[0] for c in captions), "many words " * 60]
        pairs = [
            (onnx_model.embed_images(pictures), torch_model.embed_images(pictures)),
            (onnx_model.embed_texts(texts), torch_model.embed_texts(texts)),
        ]
        for ours, theirs in pairs:
            cosine = (ours.mu * theirs.mu).sum(1)
            cosine = cosine / np.linalg.norm(ours.mu, axis=1) / np.linalg.norm(theirs.mu, axis=1)
            assert cosine.min() > 0.9999
            np.testing.assert_allclose(ours.logvar, theirs.logvar, atol=1e-3)
            assert (ours.logvar < 0).all()

    def test_a_row_does_not_depend_on_its_neighbours(self) -> None:
        model = load_model("default", "cpu")
        together = model.embed_texts(["a dog", "two children play in the snow near a red house"])
        np.testing.assert_allclose(together.mu[:1], model.embed_texts(["a dog"]).mu, atol=1e-4)

    def test_int8_arithmetic_reads_the_same_weights_and_gives_nearly_the_same_vectors(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = shutil.copytree(SHIPPED, tmp_path / "model")
        scenes = [render_scene(seed, side_px=260)[0] for seed in range(10)]
        (folder / INT8_GRAPH).unlink(missing_ok=True)
        path = export_int8(folder, np.stack([square(scene, 260) for scene in scenes[:6]]))
        proto = onnx.load(str(path), load_external_data=False)
        inside = {t.name: int(np.prod(t.dims)) for t in proto.graph.initializer if not t.external_data}
        assert max(inside.values()) <= 2112  # ranges and biases, one number a channel; no matrix
        assert {t.name.removesuffix(".stored") for t in proto.graph.initializer if t.external_data} >= {
            "encoders.image.trunk.blocks.0.convs.0.weight",
            "encoders.image.head.hidden.weight",
        }
        found = {}
        for fast in (False, True):
            monkeypatch.setattr(encoder, "multiplies_bytes", lambda fast=fast: fast)
            found[fast] = load_model(folder, "cpu").embed_images(scenes[6:]).mu
        cosine = (found[True] * found[False]).sum(1)
        cosine = cosine / np.linalg.norm(found[True], axis=1) / np.linalg.norm(found[False], axis=1)
        assert cosine.min() > 0.95  # on photographs 0.996 on average; drawings are far from what the trunk knows
        assert cosine.max() < 0.999999  # another arithmetic it is

    def test_it_is_small_and_knows_nothing_of_the_machine_it_was_made_on(self) -> None:
        files = [path for path in PRETRAINED.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) <= 28 * 2**20
        for graph in SHIPPED.glob("*.onnx"):
            proto = onnx.load(str(graph), load_external_data=False)
            external = {e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location"}
            assert external == {"model.safetensors"}
            assert b"site-packages" not in graph.read_bytes()
            assert not proto.metadata_props
        described = json.loads((SHIPPED / "model.json").read_text(encoding="utf-8"))
        assert all(not Path(source).is_absolute() for source in described.get("data", []))
