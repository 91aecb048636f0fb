"""The runtimes that a graph can be measured on, each as one function from a batch to the means.

In: an ONNX graph. Out: `Run`. Next: `litert.py`, a runtime that reads no ONNX.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Run = Callable[[NDArray[Any]], NDArray[np.float32]]


def absent(package: str) -> str:
    """Why a runtime is not measured; empty where it is installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"not measured: pip install {package}"
    return ""


def onnx_run(model: Path, threads: int = 1) -> Run:
    """On ONNX Runtime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(["mu"], {name: batch})[0]  # type: ignore[no-any-return]


def openvino_run(model: Path, precision: str, threads: int = 1) -> Run:
    """On OpenVINO, computing in `f32` or `bf16` what is not int8."""
    import openvino  # type: ignore[import-not-found, unused-ignore]

    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(str(model), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda batch: np.array(request.infer({0: batch})[compiled.output("mu")])
