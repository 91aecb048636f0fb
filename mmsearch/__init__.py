"""Cross-modal search for folders of photos and texts.

    >>> from mmsearch import Library
    >>> Library.open().search("a dog running on the beach")

The names below are public; each loads its module when it is first asked for, so `import mmsearch` costs nothing.
Next: `library.py`, or `cli/app.py` for the command line.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.base.types import IndexReport, Posterior
    from mmsearch.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        DecodeError,
        DecodeInterrupted,
        DimensionMismatch,
        FolderNotFound,
        LibraryClosed,
        LibraryCorrupt,
        LibraryError,
        LibraryLocked,
        LibraryNotFound,
        MMSearchError,
        ModelError,
        ModelMismatch,
        ModelNotFound,
        ModelNotNamed,
        NotPlainFile,
        QueryError,
        TrainingError,
    )
    from mmsearch.inference.load_model import load_model
    from mmsearch.library import Library
    from mmsearch.query.hits import Hit

__version__ = "0.1.0"

# ONNX Runtime 1.29 and later writes a device id below ~/.cache and looks a host up unless this is set before its import
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DecodeError",
    "DecodeInterrupted",
    "DimensionMismatch",
    "FolderNotFound",
    "Hit",
    "IndexReport",
    "Library",
    "LibraryClosed",
    "LibraryCorrupt",
    "LibraryError",
    "LibraryLocked",
    "LibraryNotFound",
    "MMSearchError",
    "ModelError",
    "ModelMismatch",
    "ModelNotFound",
    "ModelNotNamed",
    "NotPlainFile",
    "Posterior",
    "QueryError",
    "TrainingError",
    "__version__",
    "load_model",
]

_HOME = {
    "Hit": "mmsearch.query.hits",
    "IndexReport": "indexer.base.types",
    "Library": "mmsearch.library",
    "Posterior": "indexer.base.types",
    "load_model": "mmsearch.inference.load_model",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mmsearch' has no attribute '{name}'; public names: {', '.join(__all__)}")
    value: object = getattr(importlib.import_module(_HOME.get(name, "mmsearch.errors")), name)
    globals()[name] = value  # the next time the name is simply there
    return value


def __dir__() -> list[str]:
    return __all__
