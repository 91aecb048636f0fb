"""Where the tensors of a safetensors file lie, for those who read a few rows of one or point into it.

In: a path. Out: for each tensor its type, shape and place in the file. Nothing but the header is read, and nothing in
it is believed: each place lies within the file and has the size of its shape.
Format: https://github.com/huggingface/safetensors#format. Next: `mmsearch/inference/minilm_numpy.py`.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEADER_LIMIT_BYTES: Final = 4 << 20  # some 100 bytes a tensor; as Python objects a header takes up to 30 times its size
DTYPE_BYTES: Final = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


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
        file_bytes = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_LIMIT_BYTES:
            raise ValueError(f"{path} has a header of {length:,} bytes")
        try:
            header = json.loads(file.read(length))
        except RecursionError as error:
            raise ValueError(f"{path} has no header of safetensors") from error
    try:
        said = {name: one for name, one in header.items() if name != "__metadata__"}
        places = {
            name: TensorPlace(one["dtype"], tuple(one["shape"]), 8 + length + first, last - first)
            for name, one in said.items()
            for first, last in [one["data_offsets"]]
        }
        wrong = [name for name, place in places.items() if not _fits(place, 8 + length, file_bytes)]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no header of safetensors") from error
    if wrong:
        raise ValueError(f"{path} is cut off, or its header names places that are not in it ({wrong[0][:80]!r})")
    return places


def _fits(place: TensorPlace, data_start: int, file_bytes: int) -> bool:
    """Whether a tensor lies in the file and is as long as its shape says."""
    numbers = (*place.shape, place.start, place.size_bytes)
    if not all(type(number) is int and number >= 0 for number in numbers):
        return False
    right_size = math.prod(place.shape) * DTYPE_BYTES[place.dtype] == place.size_bytes
    return right_size and place.start >= data_start and place.start + place.size_bytes <= file_bytes
