"""Errors as one line: what is about memory says so, whoever wrapped it."""

from __future__ import annotations

import pytest

from mmsearch.cli.explain import explain
from mmsearch.errors import CheckpointError


def wrapped(cause: BaseException) -> Exception:
    """A cause inside of what the model's code says of any file that it cannot load."""
    try:
        raise CheckpointError("image.onnx cannot be loaded; copy the model again") from cause
    except CheckpointError as error:
        return error


@pytest.mark.parametrize(
    "cause",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
        ImportError("libx.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
    ],
)
def test_too_little_memory_is_called_that(cause: Exception) -> None:
    for error in (cause, wrapped(cause)):
        assert explain(error).startswith("not enough memory; ")


def test_other_causes_leave_the_message_as_it_is() -> None:
    assert explain(wrapped(ValueError("out of range"))) == "image.onnx cannot be loaded; copy the model again"
    hidden = ValueError("x")
    hidden.__context__, hidden.__suppress_context__ = MemoryError(), True
    assert explain(hidden).startswith("unexpected ValueError: x")
    circle = ValueError("x")
    circle.__cause__ = circle
    assert explain(circle).startswith("unexpected ValueError: x")
