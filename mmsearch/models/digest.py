"""What a model folder says of itself to be held against its files: a fingerprint, and a sha256 for each of them.

In: `model.json`. Out: whether the folder is the one that was written. Without torch, since a search asks too.
Next: `inference/load_model.py`, which asks before it reads a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from indexer.base.durable import sha256_of
from mmsearch.errors import CheckpointError

DESCRIPTION: Final = "model.json"
WEIGHTS: Final = "model.safetensors"
_SEALED: Final = ("*.onnx", "tokenizer.json", "queries.safetensors")


def fingerprint(described: Mapping[str, Any]) -> str:
    """sha256 over the weights' sha256 and the architecture, hex."""
    canonical = json.dumps(described["architecture"], sort_keys=True)
    return hashlib.sha256(f"{described['weights_sha256']}\n{canonical}".encode()).hexdigest()


def seal(folder: Path) -> None:
    """Note the sha256 of graphs, tokenizer and queries in `model.json`, outside the fingerprint."""
    path = folder / DESCRIPTION
    described = json.loads(path.read_text(encoding="utf-8"))
    described["files"] = {one.name: sha256_of(one) for pattern in _SEALED for one in sorted(folder.glob(pattern))}
    path.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def check_fingerprint(folder: Path, described: Mapping[str, Any]) -> None:
    """Refuse a `model.json` that was changed. Raises: CheckpointError."""
    if "weights_sha256" in described and fingerprint(described) != described.get("fingerprint"):
        path = folder / DESCRIPTION
        kind = described["architecture"].get("kind")
        raise CheckpointError(f"{path} is damaged: its architecture {kind!r} has another fingerprint; copy it again")


def check_file(path: Path, described: Mapping[str, Any]) -> None:
    """Refuse a file that is not the one that `model.json` names; files it does not name pass.

    Raises: CheckpointError: damaged, or missing.
    """
    files = described.get("files")
    known = files.get(path.name) if isinstance(files, dict) else None
    expected = described.get("weights_sha256") if path.name == WEIGHTS else known
    if expected is None:
        return
    try:
        found = sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); copy the model again") from error
    if found != expected:
        raise CheckpointError(
            f"{path} is damaged: sha256 {found[:12]}, expected {str(expected)[:12]}; copy the model again"
        )
