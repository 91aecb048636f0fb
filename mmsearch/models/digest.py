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

from indexer.base import compared
from indexer.base.durable import sha256_of
from mmsearch.errors import CheckpointError
from mmsearch.models.files import look_at, read_json

FORMAT: Final = 1
DESCRIPTION: Final = "model.json"
WEIGHTS: Final = "model.safetensors"
SHA256_DIGITS: Final = 64
_SEALED: Final = ("*.onnx", "tokenizer.json", "queries.safetensors")
_LARGEST: Final = {  # of the numbers in an architecture: they decide how much memory the modules take
    **{"vocabulary": 1_000_000, "latent_dim": 8192, "hidden_dim": 16_384, "image_features": 16_384},
    **{"text_features": 16_384, "max_tokens": 4096, "side_px": 2048},
}


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


def read_description(folder: Path) -> dict[str, Any]:
    """`model.json` of a folder, checked: this format, sizes within bounds, and the fingerprint that follows from it.

    Raises:
        CheckpointError: where it is missing, cannot be read, or was changed.
    """
    path = folder / DESCRIPTION
    try:
        described = read_json(folder, DESCRIPTION)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no model in {folder}: model.json is missing; name a folder that mmsearch train wrote"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); copy the model again") from error
    if wrong := _wrong(described):
        raise CheckpointError(
            f"{path} cannot be read as a model of format {FORMAT} ({wrong}); update mmsearch or copy the model again"
        )
    if fingerprint(described) != described["fingerprint"]:
        kind = described["architecture"].get("kind")
        raise CheckpointError(f"{path} is damaged: its architecture {kind!r} has another fingerprint; copy it again")
    return dict(described)


def _wrong(described: Any) -> str:
    """What keeps a description from being one; empty where nothing does."""
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        return "it is of no or another format"
    for key in ("fingerprint", "weights_sha256"):
        if not isinstance(described.get(key), str) or len(described[key]) != SHA256_DIGITS:
            return f"no {key}"
    architecture = described.get("architecture")
    if not isinstance(architecture, dict) or "latent_dim" not in architecture:
        return "no architecture"
    for key in ("kind", "trunk", "backbone"):
        if not isinstance(architecture.get(key, ""), str):
            return f"{key} is no name"
    for key, largest in _LARGEST.items():
        size = architecture.get(key, largest)
        if type(size) is not int or not (key != "vocabulary") <= size <= largest:
            return f"{key} is not from 1 to {largest}"
    return ""


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
        look_at(path.parent, path.name)
        if compared.is_known(path, str(expected)):
            return
        before, found = path.stat(), sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); copy the model again") from error
    if found != expected:
        raise CheckpointError(
            f"{path} is damaged: sha256 {found[:12]}, expected {str(expected)[:12]}; copy the model again"
        )
    compared.remember(path, found, before)
