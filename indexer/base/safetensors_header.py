"""Where the tensors of a safetensors file lie, for those who read a few rows of one or point into it.

In: a path. Out: for each tensor its type, shape and place in the file. Nothing but the header is read.
Format: https://github.com/huggingface/safetensors#format. Next: `mmsearch/inference/minilm_numpy.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEADER_LIMIT_BYTES: Final = 100_000_000  # as in the library's own reader


@dataclass(frozen=True)
class TensorPlace:
    """One tensor: `dtype` as the format calls it (`F16`), the first byte in the file, and how many follow."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


def tensor_places(path: Path) -> dict[str, TensorPlace]:
    """Every tensor by its name. Raises: OSError; ValueError where the file is no such file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_LIMIT_BYTES:
            raise ValueError(f"{path} has a header of {length:,} bytes")
        header = json.loads(file.read(length))
    try:
        said = {name: one for name, one in header.items() if name != "__metadata__"}
        return {
            name: TensorPlace(one["dtype"], tuple(one["shape"]), 8 + length + first, last - first)
            for name, one in said.items()
            for first, last in [one["data_offsets"]]
        }
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"{path} has no header of safetensors") from error
