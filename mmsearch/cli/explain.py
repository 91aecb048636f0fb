"""Any error as one line: what happened, where, what to type next.

In: an exception that ended a command. Out: its line. Next: `terminal.py`, which prints it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import typer

from mmsearch.errors import MMSearchError

DEBUG_VARIABLE: Final = "MMSEARCH_DEBUG"
OPTIONAL_PACKAGES: Final = {
    "pyarrow": "archive",
    "torch": "train",
    "matplotlib": "train",
    "onnx": "train",
    "sklearn": "train",
    "scipy": "train",
    "sentence_transformers": "models",
}
# how the system's loader, C++ libraries and SQLite say that there is no memory left
NO_MEMORY_WORDS: Final = (
    "bad_alloc", "out of memory", "failed to map segment", "cannot allocate memory", "can't start new thread",
    "failed to allocate memory", "cannot allocate thread",
)  # fmt: skip

# the parent of BadParameter: older typers take it from click, newer ones carry their own
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def explain(error: Exception) -> str:
    """Any error as one line: what happened and what to do."""
    if any(_is_about_memory(one) for one in _with_causes(error)):
        return "not enough memory; close other programs, or lift the limit of this one ('ulimit -v unlimited')"
    if isinstance(error, MMSearchError):
        return str(error)
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "mmsearch"
        message = error.format_message() if isinstance(error, typer.BadParameter) else getattr(error, "message", "")
        return f"{str(message or error).rstrip('.')}; see '{path} --help'"
    if isinstance(error, ModuleNotFoundError) and error.name in OPTIONAL_PACKAGES:
        return f"this needs {error.name}; run \"pip install 'mmsearch[{OPTIONAL_PACKAGES[error.name]}]'\""
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        from indexer.base.disk_errors import FULL, trouble  # a start that succeeds does not need it

        name = os.fsdecode(error.filename)
        found = trouble(error, Path(name))
        what = error.strerror if found in (None, FULL) else found.what
        return f"{name}: {what}" + ("" if found is None else f"; {found.remedy}")
    if isinstance(error, OSError):
        return str(error.strerror or error)
    return f"unexpected {type(error).__name__}: {error}; {DEBUG_VARIABLE}=1 shows where"


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_about_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return not isinstance(error, MMSearchError) and any(words in str(error).lower() for words in NO_MEMORY_WORDS)
