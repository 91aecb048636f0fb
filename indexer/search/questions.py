"""The questions that recall is measured with: texts of the library, or vectors that are kept for one without texts.

In: a `LiveIndex`, the folder of index files. Out: float32 `[q, d]`. Next: `index_writing.py`, which measures.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Final

import numpy as np

from indexer.base.errors import LibraryError
from indexer.base.plain_files import make_folder, new_file, read_plain, temporary_name
from indexer.base.types import CAPTION, TEXT, Float32Array, Model
from indexer.search.live_index import LiveIndex
from indexer.vectors.form import FEWEST_QUESTIONS, QUESTIONS

NAME: Final = "questions-{fingerprint}.npy"
MOST_BYTES: Final = 1 << 24
HEADER_BYTES: Final = 128  # of a small .npy


def questions_for(folder: Path, live: LiveIndex) -> Float32Array:
    """Vectors of texts, `[q, d]`: some of the library's own, else those that were kept for a library without texts."""
    texts = live.ids[np.isin(live.kinds, (TEXT, CAPTION))]
    if len(texts) >= FEWEST_QUESTIONS:
        chosen = np.random.default_rng(0).choice(texts, min(QUESTIONS, len(texts)), replace=False)
        return live.index.rows.vectors_of(np.sort(chosen)).astype(np.float32)
    return kept_questions(folder, live.model)


def keep_questions(folder: Path, model: Model, questions: Float32Array) -> None:
    """Store vectors of texts `[q, d]` that recall is measured with where a library has no texts of its own.

    Raises: LibraryError.
    """
    path = _path(folder, model)
    temporary = temporary_name(path)
    try:
        make_folder(folder)
        with new_file(temporary) as file:
            file.write(_as_bytes(questions))
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LibraryError(f"{path} cannot be written ({error.strerror}); run the same command again") from error


def kept_questions(folder: Path, model: Model) -> Float32Array:
    """What `keep_questions` stored, `[q, d]`; `[0, d]` where nothing usable was."""
    none = np.empty((0, model.dim), np.float32)
    try:
        content = read_plain(_path(folder, model), MOST_BYTES)
    except (OSError, LibraryError):
        return none
    values = content[HEADER_BYTES:]
    found = np.frombuffer(values, "<f4", len(values) // 4)
    if not model.dim or len(found) % model.dim:
        return none
    found = found.reshape(-1, model.dim)
    return np.asarray(found, np.float32) if content == _as_bytes(found) else none  # no header of another's is parsed


def _as_bytes(questions: Float32Array) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(questions, "<f4"), allow_pickle=False)
    return file.getvalue()


def _path(folder: Path, model: Model) -> Path:
    """Named by the model's fingerprint, which comes from the catalog: only by letters and digits."""
    return folder / NAME.format(fingerprint=re.sub("[^0-9A-Za-z]", "", model.fingerprint[:16]))
