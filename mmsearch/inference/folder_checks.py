"""What a model folder may not hold: code, pickles, paths that lead elsewhere, tokenizers whose texts grow without end.

In: a folder, before sentence-transformers, transformers or tokenizers see it. Out: nothing, or a `CheckpointError`.
sentence-transformers refuses a folder's own code from 6.0 on; 5.x ran it. So the check is our own, and stands first.
Next: `trial.py`, where the folder is loaded for the first time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from indexer.base.safetensors_header import tensor_places
from mmsearch.errors import CheckpointError
from mmsearch.models.files import TEXT_BYTES, WEIGHTS_SUFFIX, files_of, read_json

MOST_MODULES: Final = 32
MOST_GROWTH: Final = 64  # times, of a text on its way through a tokenizer's normalizers
MOST_STEPS: Final = 64
_TYPE: Final = re.compile(
    r"sentence_transformers\.(?:models|base\.modules|sentence_transformer\.modules)(?:\.[A-Za-z_]+)?\.([A-Za-z]+)"
)
_WITH_WEIGHTS: Final = frozenset({"Transformer", "CLIPModel", "Dense", "LayerNorm", "StaticEmbedding"})
_MODULES: Final = _WITH_WEIGHTS | {"Pooling", "Normalize", "Dropout"}
_OF_CODE: Final = frozenset(
    {"auto_map", "_target_", "custom_generate", "quantization_config", "tokenizer_name_or_path"}
)
_ARGUMENTS: Final = re.compile(r"(model|tokenizer|processor|config)_(args|kwargs)")
_HARMLESS: Final = frozenset(
    {"add_pooling_layer", "dtype", "torch_dtype", "model_max_length", "padding_side", "use_fast"}
)
_METHOD: Final = re.compile(r"forward|get_[a-z_]+_features")
_ACTIVATION: Final = re.compile(r"torch\.nn\.modules\.\w+\.\w+")
_CODE_OR_PICKLE: Final = (".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_WORDS: Final = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})  # of which any may look like a path


def check_backbone_folder(folder: Path) -> None:
    """Refuse a sentence-transformers folder that is more than data. Raises: CheckpointError; OSError."""
    for file in files_of(folder):
        name = PurePosixPath(file.name).name
        if file.name.endswith(WEIGHTS_SUFFIX):
            try:
                tensor_places(file.path)
            except ValueError as error:
                raise CheckpointError(f"{folder / file.name} cannot be read ({error}); copy the model again") from error
        elif name == "adapter_config.json":
            raise CheckpointError(f"{folder / file.name} names another model to load; merge the adapter into it first")
        elif name == "tokenizer.json":
            check_tokenizer(folder / file.name)
        elif name.endswith(".json") and name not in _WORDS and not name.startswith("pytorch_model"):
            _check_config(folder / file.name, read_json(folder, file.name))
    modules = [("", "Transformer")]
    if (folder / "modules.json").exists():
        modules = [_module(folder, one) for one in _listed(folder, read_json(folder, "modules.json"))]
    for path, kind in modules:
        place = folder / path
        if kind in _WITH_WEIGHTS and not any(
            (place / f"model.safetensors{end}").exists() for end in ("", ".index.json")
        ):
            raise CheckpointError(
                f"the model in {place} cannot be loaded (no model.safetensors, and pickles are not read); name another"
            )


def check_tokenizer(path: Path) -> None:
    """Refuse a tokenizer whose normalizers make a long text of a short one. Raises: CheckpointError; OSError."""
    described = read_json(path.parent, path.name, TEXT_BYTES)
    steps = list(_steps(described.get("normalizer") if isinstance(described, dict) else None))
    if len(steps) > MOST_STEPS or math.prod(map(_growth, steps)) > MOST_GROWTH:
        raise CheckpointError(f"{path} lets a text grow more than {MOST_GROWTH} times; copy the model again")


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    if isinstance(normalizer, dict):
        yield normalizer
        for inner in normalizer.get("normalizers") or ():
            yield from _steps(inner)


def _growth(step: dict[str, Any]) -> float:
    """How many times longer a text may be after a step."""
    added = len(str(step.get("content") or step.get("prepend") or ""))
    pattern = step.get("pattern")
    replaced = len(str(pattern.get("String") or "")) if isinstance(pattern, dict) else 0
    return max(1.0, added / replaced) if replaced else 1.0 + added


def _listed(folder: Path, modules: Any) -> list[dict[str, Any]]:
    if not isinstance(modules, list) or not 0 < len(modules) <= MOST_MODULES:
        raise CheckpointError(f"{folder / 'modules.json'} lists no modules; copy the model again")
    return [one if isinstance(one, dict) else {} for one in modules]


def _module(folder: Path, described: dict[str, Any]) -> tuple[str, str]:
    """The folder and the kind of a module that `modules.json` lists."""
    said, path = described.get("type"), described.get("path")
    known = _TYPE.fullmatch(str(said))
    if known is None or known[1] not in _MODULES:
        raise CheckpointError(
            f"{folder / 'modules.json'} names a module {str(said)[:80]!r}, which is code of its own or not known here; "
            "mmsearch runs no code of a model, name another"
        )
    if not isinstance(path, str) or not _is_below(path):
        raise CheckpointError(f"{folder / 'modules.json'} names a folder {str(path)[:80]!r} outside of its own")
    return path, known[1]


def _is_below(path: str) -> bool:
    parts = PurePosixPath(path.replace("\\", "/"))
    return not parts.is_absolute() and not any(part.startswith(".") for part in parts.parts) and ":" not in path


def _check_config(path: Path, value: Any, key: str = "") -> None:
    """Refuse what names code, pickles or places elsewhere, in one value of a configuration and all below it."""
    if isinstance(value, dict):
        for inner, one in value.items():
            _check_config(path, one, inner)
    elif isinstance(value, list):
        for one in value:
            _check_config(path, one, key)
    names_code = isinstance(value, str) and (
        value.endswith(_CODE_OR_PICKLE)
        or (key == "method" and not _METHOD.fullmatch(value))
        or (key == "activation_function" and "." in value and not _ACTIVATION.fullmatch(value))
        or ("attn_implementation" in key and ("/" in value or ":" in value))
        or (path.name.endswith(".index.json") and value.endswith(WEIGHTS_SUFFIX) and "/" in value.replace("\\", "/"))
    )
    arguments = _ARGUMENTS.fullmatch(key) and isinstance(value, dict) and not value.keys() <= _HARMLESS
    if names_code or arguments or (value and (key in _OF_CODE or key == "trust_remote_code")):
        raise CheckpointError(
            f"{path} asks for code, a pickle or files elsewhere ({key[:40]!r}: {str(value)[:80]!r}); mmsearch runs no "
            "code of a model, name another"
        )
