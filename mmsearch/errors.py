"""The exception tree, whole: the indexer's branches and those that need a model, a query or a configuration.

MMSearchError (indexer/base/errors.py draws the library's branches)
├── QueryError              nothing to search for, or k < 1
├── ConfigError             a configuration that cannot be read; an unknown key
├── ModelError              a model that cannot be loaded
│   ├── ModelNotFound       a name that no model on this machine has; downloading is a command of its own
│   └── CheckpointError     a checkpoint that is truncated or of another architecture
├── DataError               a training data set that cannot be used as it is
└── TrainingError           training that cannot go on (a loss that is not a number)
"""

from __future__ import annotations

from indexer.base.errors import (
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
    ModelMismatch,
    ModelNotNamed,
    NotPlainFile,
)

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DecodeError",
    "DecodeInterrupted",
    "DimensionMismatch",
    "FolderNotFound",
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
    "QueryError",
    "TrainingError",
]


class QueryError(MMSearchError):
    """A query that asks for nothing."""


class ConfigError(MMSearchError):
    """A configuration file that cannot be used."""


class ModelError(MMSearchError):
    """A model that cannot be loaded or used."""


class ModelNotFound(ModelError):
    """A model that was named and never downloaded."""


class CheckpointError(ModelError):
    """A checkpoint that is incomplete or belongs to another architecture."""


class DataError(MMSearchError):
    """A data set for training or evaluation that cannot be used."""


class TrainingError(MMSearchError):
    """Training that cannot go on."""
