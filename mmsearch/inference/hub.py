"""Where a sentence-transformers model lies on this machine, and the one call that fetches it from the hub.

In: a name or a folder. Out: a folder. Only `download` opens a socket; everything else reads what is there already, and
`offline` makes the packages that could ask the hub on their own take it for unreachable. Next: `backbone.py`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmsearch.errors import ModelError, ModelNotFound

EXAMPLE: Final = "clip-ViT-B-32"
REACH_TIMEOUT_S: Final = 5.0
ORGANISATION: Final = "sentence-transformers"  # of names without one
REMEDY: Final = "run 'mmsearch download NAME' with a network, or name a folder"
_WANTED: Final = ["*.json", "*.txt", "*.model", "*.spm", "*.jinja", "*.safetensors", "*.md"]
_UNWANTED: Final = ["onnx/*", "openvino/*"]


def place_of(name: str) -> Path:
    """The folder of a model: the one named, or the one in the hub's cache on this machine.

    Raises:
        ModelError: there is no such folder.
        ModelNotFound: it is a name, and was not downloaded.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"model {name!r} cannot be loaded (no such folder); name a model or its folder, as {EXAMPLE}")
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for repository in _repositories(name):
        for file in ("modules.json", "config.json"):
            with contextlib.suppress(HFValidationError):
                found = try_to_load_from_cache(repository, file, cache_dir=_cache())
                if isinstance(found, str):
                    return Path(found).parent
    raise ModelNotFound(f"model {name!r} is not on this machine; {REMEDY}")


def download(name: str) -> Path:
    """Fetch a model that is not there yet, its configuration and safetensors alone; returns its folder.

    Raises:
        ModelError: the hub cannot be reached or has no such model.
    """
    with contextlib.suppress(ModelNotFound):
        return place_of(name)
    from huggingface_hub import constants, get_session, snapshot_download

    try:  # once: the packages try each of a dozen files six times, for minutes
        get_session().head(constants.ENDPOINT, timeout=REACH_TIMEOUT_S)
    except Exception as error:  # the errors of whichever client the hub's package uses
        raise ModelError(
            f"model {name!r} is not on this machine and {constants.ENDPOINT} cannot be reached; "
            "download it once with a network, or name a folder"
        ) from error
    failed: Exception | None = None
    for repository in _repositories(name):
        try:
            fetched = snapshot_download(
                repository, cache_dir=_cache(), allow_patterns=_WANTED, ignore_patterns=_UNWANTED
            )
            return Path(fetched)
        except Exception as error:  # likewise
            failed = failed or error
    found = str(failed).strip().splitlines()[0][:200] if str(failed).strip() else type(failed).__name__
    raise ModelError(f"model {name!r} cannot be loaded ({found}); check its name at huggingface.co") from failed


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within, the hub's package and those that stand on it ask nobody."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _repositories(name: str) -> list[str]:
    return [name] if "/" in name else [f"{ORGANISATION}/{name}", name]


def _cache() -> str | None:
    return os.environ.get("SENTENCE_TRANSFORMERS_HOME")
