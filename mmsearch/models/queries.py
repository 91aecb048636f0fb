"""The bank of queries in a model's folder: `queries.safetensors`, beside the weights and no part of them.

    text.centres float16 [q, d]   text.shares float32 [q]   text.sharpness, text.level float32 [1]   image.* likewise

In: a folder. Out: a `QueryBank`, or None where the model has none and scores are plain cosines. Without torch, since a
search reads it. Next: `indexer/bank.py`, which says what it is for; `training/bank.py` makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexer.bank import QueryBank
from indexer.types import Modality
from mmsearch.errors import CheckpointError
from mmsearch.models.digest import check_file

QUERIES: Final = "queries.safetensors"


def save_banks(folder: Path, banks: Iterable[QueryBank]) -> None:
    """Write the banks of a model; `digest.seal` notes the file's sha256 afterwards."""
    from safetensors.numpy import save_file

    tensors = {}
    for bank in banks:
        tensors[f"{bank.modality}.centres"] = bank.centres.astype(np.float16)
        tensors[f"{bank.modality}.shares"] = bank.shares.astype(np.float32)
        tensors[f"{bank.modality}.sharpness"] = np.array([bank.sharpness], np.float32)
        tensors[f"{bank.modality}.level"] = np.array([bank.level], np.float32)
    save_file(tensors, folder / QUERIES)


def load_bank(folder: Path, described: Mapping[str, Any], modality: Modality) -> QueryBank | None:
    """The bank of queries of one modality, None where the folder has none. Raises: CheckpointError."""
    path, files = folder / QUERIES, described.get("files")
    if not path.exists() and not (isinstance(files, dict) and QUERIES in files):
        return None
    check_file(path, described)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        if f"{modality}.centres" not in tensors:
            return None
        centres = tensors[f"{modality}.centres"].astype(np.float32)
        shares = tensors[f"{modality}.shares"].astype(np.float32)
        sharpness, level = (float(tensors[f"{modality}.{name}"][0]) for name in ("sharpness", "level"))
    except (OSError, SafetensorError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy the model again") from error
    dim = described["architecture"]["latent_dim"]
    if centres.ndim != 2 or centres.shape[1] != dim or shares.shape != centres.shape[:1] or not sharpness > 0:
        raise CheckpointError(f"{path} holds queries of shape {centres.shape}, the model has d={dim}; copy it again")
    return QueryBank(modality, centres, shares, sharpness, level)
