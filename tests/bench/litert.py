"""The image encoder on LiteRT (`pip install ai-edge-litert`): its trunk as a flatbuffer, written here layer by layer.

In: the int8 graph for ONNX Runtime, which holds the ranges, and the weights. Out: a function from photos to means. The
integers are those of the other graph, so that speed alone tells the two apart, and nothing but the runtime itself has
to be installed: its converters bring TensorFlow or a torch of their own. Pooling and head run in torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.models.efficientnet_lite import ConvSpec, EfficientNetLite
from mmsearch.models.vae import ImageEncoder
from tests.bench.runtimes import Run

Range = tuple[float, int]  # scale and zero point: real = scale * (stored - zero point), stored int8
PIXELS = (1 / 128, -1)  # with these the pixels, less 128, are the stem's normalised input as they stand
INT8, INT32, FLOAT = 9, 2, 0  # of the flatbuffer's schema
SAME, NO_ACTIVATION, RELU6 = 0, 0, 3
ADD, CONV, DEPTHWISE, DEQUANTIZE, QUANTIZE = 0, 3, 4, 6, 114
VERSIONS = {ADD: 2, CONV: 3, DEPTHWISE: 3, DEQUANTIZE: 2, QUANTIZE: 1}  # of the operators, the first with int8


@dataclass(frozen=True)
class Layer:
    """What one layer is rounded with; a sum has no weights."""

    in_int8: bool
    given: Range | None  # of what it gives, None where that stays float32
    weight_scales: NDArray[Any]  # [out]
    bias: NDArray[Any]  # int32 [out]


class Trunk:
    """A flatbuffer of the trunk in the making.

    Args:
        trunk: with its weights.
        layers: of every convolution and sum, in order, for int8; None computes in float32.
    """

    def __init__(self, trunk: EfficientNetLite, layers: list[Layer] | None) -> None:
        from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-not-found, unused-ignore]

        self.schema, self.trunk, self.layers = schema, trunk, iter(layers) if layers else None
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]  # the first stays empty: of tensors that are computed
        shape, stored = [1, trunk.side_px, trunk.side_px, 3], bool(layers and layers[0].in_int8)
        self.last = self.tensor(shape, INT8 if stored else FLOAT, PIXELS if stored else None)

    def build(self) -> bytes:
        """The whole chain, from pixels to the feature map in float32."""
        for block in self.trunk.blocks:
            start = self.last
            for spec, conv in zip(block.specs, block.convs, strict=True):
                weight, bias = (p.detach().numpy() for p in (conv.weight, conv.bias))
                self.convolve(spec, weight, bias)
                if spec.adds_input:
                    layer = self.next_layer()
                    shape = self.tensors[self.last].shape
                    self.operate(ADD, [self.last, start], shape, self.schema.AddOptionsT(), layer and layer.given)
        if self.layers is not None:
            shape = self.tensors[self.last].shape
            self.operate(DEQUANTIZE, [self.last], shape, self.schema.DequantizeOptionsT(), None)
        return self.packed()

    def next_layer(self) -> Layer | None:
        return None if self.layers is None else next(self.layers)

    def convolve(self, spec: ConvSpec, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        """Weight `[out, in, k, k]`, bias `[out]`."""
        deep, layer = spec.groups > 1, self.next_layer()
        laid = weight.transpose(1, 2, 3, 0) if deep else weight.transpose(0, 2, 3, 1)
        inputs = [self.last, *self.constants(laid, bias, 3 if deep else 0, layer)]
        _, height, width, _ = self.tensors[self.last].shape
        shape = [1, math.ceil(height / spec.stride), math.ceil(width / spec.stride), spec.channels_out]
        options = self.schema.DepthwiseConv2DOptionsT() if deep else self.schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = SAME, spec.stride, spec.stride
        options.dilationHFactor = options.dilationWFactor = 1
        if deep:
            options.depthMultiplier = 1
        options.fusedActivationFunction = RELU6 if spec.relu6 else NO_ACTIVATION
        self.operate(
            DEPTHWISE if deep else CONV, inputs, shape, options, layer.given if layer and layer.in_int8 else None
        )
        if layer and layer.given and not layer.in_int8:  # the last before those in int8
            self.operate(QUANTIZE, [self.last], shape, self.schema.QuantizeOptionsT(), layer.given)

    def constants(self, weight: NDArray[Any], bias: NDArray[Any], channel: int, layer: Layer | None) -> list[int]:
        """Weights and bias as tensors; in int8 the weights by output channel, the bias in units of the products."""
        if layer is None or not layer.in_int8:
            return [self.tensor(list(a.shape), FLOAT, None, a.astype(np.float32)) for a in (weight, bias)]
        along = [-1 if i == channel else 1 for i in range(4)]
        rounded = np.clip(np.rint(weight / layer.weight_scales.reshape(along)), -127, 127).astype(np.int8)
        unit = layer.weight_scales * float(self.tensors[self.last].quantization.scale[0])
        return [
            self.tensor(list(rounded.shape), INT8, (layer.weight_scales, channel), rounded),
            self.tensor(list(layer.bias.shape), INT32, (unit, 0), layer.bias),
        ]

    def tensor(self, shape: list[int], kind: int, spread: Any, data: NDArray[Any] | None = None) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type, tensor.name, tensor.buffer = shape, kind, f"t{len(self.tensors)}", 0
        if data is None:
            tensor.shapeSignature = [-1, *shape[1:]]
        else:
            tensor.buffer = len(self.buffers)
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
        if spread is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            scale, second = spread  # the second is the zero point, of constants the channels' axis
            many = np.atleast_1d(scale)
            tensor.quantization.scale = many.astype(np.float32)
            tensor.quantization.zeroPoint = np.full(len(many), 0 if data is not None else second, np.int64)
            tensor.quantization.quantizedDimension = second if data is not None else 0
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operate(self, code: int, inputs: list[int], shape: list[int], options: Any, given: Range | None) -> None:
        """One operator; what it gives is int8 with a range, else float32."""
        operator, name = self.schema.OperatorT(), type(options).__name__.removesuffix("T")
        operator.opcodeIndex, operator.inputs, operator.builtinOptions = list(VERSIONS).index(code), inputs, options
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
        self.last = self.tensor(list(shape), FLOAT if given is None else INT8, given)
        operator.outputs = [self.last]
        self.operators.append(operator)

    def packed(self) -> bytes:
        import flatbuffers

        model, graph = self.schema.ModelT(), self.schema.SubGraphT()
        for code, version in VERSIONS.items():
            entry = self.schema.OperatorCodeT()
            entry.builtinCode = entry.deprecatedBuiltinCode = code
            entry.version = version
            model.operatorCodes = [*(model.operatorCodes or []), entry]
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, [0], [self.last]
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        builder = flatbuffers.Builder(1 << 24)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def layers_of(proto: Any) -> list[Layer]:
    """What the trunk's convolutions and sums are rounded with, in order, of a graph of `quantised`."""
    from onnx import numpy_helper

    known = {t.name: t for t in proto.graph.initializer}
    nodes = list(proto.graph.node)
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]

    def number(name: str) -> NDArray[Any]:
        return numpy_helper.to_array(known[name]) if name in known else np.zeros(0)

    def spread(name: str) -> Range | None:
        if f"{name}_scale" not in known:
            return None
        return float(number(f"{name}_scale")), int(number(f"{name}_zero_point")) - 128  # uint8 there, int8 here

    layers = []
    for node in nodes[convolutions[0] : convolutions[-1] + 1]:
        if node.op_type in ("Conv", "Add"):
            name, bias = node.output[0], node.input[-1]
            weight = bias.removesuffix("bias") + "weight"
            stored = node.op_type == "Add" or f"{weight}_scale" in known
            layers.append(Layer(stored, spread(name), number(f"{weight}_scale"), number(f"{bias}_quantized")))
    return layers


def litert_run(trunk: bytes, encoder: ImageEncoder, threads: int = 1) -> Run:
    """Photos uint8 `[n, side, side, 3]` -> means `[n, d]`; the trunk is of `Trunk.build`."""
    import torch
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found, unused-ignore]

    torch.set_num_threads(threads)
    interpreter = Interpreter(model_content=trunk, num_threads=threads)
    entry, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    given, in_int8 = entry["index"], entry["dtype"] == np.int8

    interpreter.allocate_tensors()

    def run(batch: NDArray[Any]) -> NDArray[np.float32]:
        if tuple(interpreter.get_input_details()[0]["shape"]) != batch.shape:
            interpreter.resize_tensor_input(given, batch.shape)
            interpreter.allocate_tensors()
        pixels = (batch ^ 128).view(np.int8) if in_int8 else (batch.astype(np.float32) - 127) / np.float32(128)
        interpreter.set_tensor(given, pixels)
        interpreter.invoke()
        states = torch.from_numpy(interpreter.get_tensor(found)).flatten(1, 2)  # [n, t, 1280]
        with torch.inference_mode():
            return encoder.head(encoder.pool(states))[0].numpy()  # type: ignore[no-any-return]

    return run
