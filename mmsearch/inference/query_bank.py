"""The bank of queries in a model's folder: `queries.safetensors`, beside the weights and no part of them.

    text.centres uint8 [q, d / 2], two numbers a byte   text.scales float16 [q]   text.shares float32 [q]
    text.sharpness, text.level float32 [1]   image.* likewise

Four bits a number, since a sum over hundreds of clusters evens their rounding out and a model should be small. In: a
folder. Out: a `QueryBank`, or None where the model has none and scores are plain cosines. Without torch, since a
search reads it. Next: `../../indexer/search/query_bank.py`, which says what it is for, and
`../training/calibration_queries.py`, which makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexer.base.types import Float32Array, Modality, UInt8Array
from indexer.search.query_bank import QueryBank
from mmsearch.errors import CheckpointError
from mmsearch.models.digest import check_file
from mmsearch.models.files import read_file

QUERIES: Final = "queries.safetensors"
MOST_BYTES: Final = 8 << 20
_MAX_CODE: Final = 7  # of a signed number of four bits, stored as 1 to 15


def rounded(centres: Float32Array) -> Float32Array:
    """Centres `[q, d]` as a folder keeps them."""
    return _unpacked(*_packed(centres))[:, : centres.shape[1]]


def _packed(centres: Float32Array) -> tuple[UInt8Array, NDArray[np.float16]]:
    scales = (np.abs(centres).max(axis=1) / _MAX_CODE).astype(np.float16)  # [q]
    steps = np.maximum(scales.astype(np.float32), np.float32(1e-7))[:, None]
    codes = (np.clip(np.round(centres / steps), -_MAX_CODE, _MAX_CODE) + 8).astype(np.uint8)  # [q, d]
    codes = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)), constant_values=8)
    return codes[:, 0::2] << 4 | codes[:, 1::2], scales


def _unpacked(packed: UInt8Array, scales: NDArray[np.float16]) -> Float32Array:
    codes = np.stack([packed >> 4, packed & 15], axis=2).reshape(len(packed), -1)  # [q, d]
    return np.asarray((codes.astype(np.float32) - 8) * scales.astype(np.float32)[:, None], np.float32)


def save_banks(folder: Path, banks: Iterable[QueryBank]) -> None:
    """Write the banks of a model; `digest.seal` notes the file's sha256 afterwards."""
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[Any]] = {}
    for bank in banks:
        packed, scales = _packed(bank.centres)
        tensors[f"{bank.modality}.centres"], tensors[f"{bank.modality}.scales"] = packed, scales
        tensors[f"{bank.modality}.shares"] = bank.shares.astype(np.float32)
        tensors[f"{bank.modality}.sharpness"] = np.array([bank.sharpness], np.float32)
        tensors[f"{bank.modality}.level"] = np.array([bank.level], np.float32)
    save_file(tensors, folder / QUERIES)


def load_bank(folder: Path, described: Mapping[str, Any], modality: Modality) -> QueryBank | None:
    """The bank of queries of one modality, None where the folder has none. Raises: CheckpointError."""
    path, files = folder / QUERIES, described.get("files")
    if not path.exists() and not (isinstance(files, dict) and QUERIES in files):
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = read_file(folder, QUERIES, MOST_BYTES)
        check_file(path, described)
        tensors = load(data)
        if f"{modality}.centres" not in tensors:
            return None
        packed, scales = tensors[f"{modality}.centres"], tensors[f"{modality}.scales"]
        if packed.ndim != 2 or packed.dtype != np.uint8 or scales.shape != packed.shape[:1]:
            raise ValueError(f"centres {packed.dtype} {packed.shape}, scales {scales.shape}")
        centres = _unpacked(packed, scales)
        shares = tensors[f"{modality}.shares"].astype(np.float32)
        sharpness, level = (float(tensors[f"{modality}.{name}"][0]) for name in ("sharpness", "level"))
        if not all(np.isfinite(one).all() for one in (centres, shares, sharpness, level)):
            raise ValueError("numbers that are not finite")
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy the model again") from error
    dim = int(described["architecture"]["latent_dim"])
    if centres.shape[1] != dim + dim % 2 or shares.shape != centres.shape[:1] or not sharpness > 0:
        raise CheckpointError(f"{path} holds queries of shape {centres.shape}, the model has d={dim}; copy it again")
    return QueryBank(modality, centres[:, :dim], shares, sharpness, level)
