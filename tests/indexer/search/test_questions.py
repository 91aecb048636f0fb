"""Questions that are kept: found again, and nothing of a file that somebody else prepared does harm."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryError, NotPlainFile
from indexer.base.types import Model
from indexer.search.questions import MOST_BYTES, keep_questions, kept_questions

MODEL = Model(1, "0123456789abcdef and more", "name", 4)
NAME = "questions-0123456789abcdef.npy"
QUESTIONS = np.arange(20, dtype=np.float32).reshape(5, 4)


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    assert kept_questions(folder, MODEL).shape == (0, 4)
    keep_questions(folder, MODEL, QUESTIONS)
    assert [path.name for path in folder.iterdir()] == [NAME]
    np.testing.assert_array_equal(kept_questions(folder, MODEL), QUESTIONS)
    assert kept_questions(folder, Model(2, MODEL.fingerprint, "", 5)).shape == (0, 5)


def _saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


STRANGE = {
    "nothing": b"",
    "garbage": b"x" * 1000,
    "objects": _saved(np.array([{}, []], object)),
    "other numbers": _saved(QUESTIONS.astype(np.float64)),
    "transposed": _saved(np.asfortranarray(QUESTIONS)),
    "too short": _saved(QUESTIONS)[:-1],
    "terabytes": _saved(QUESTIONS).replace(b"(5, 4), }          ", b"(5000000000, 4), }"),
    "a long header": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535,
    "too large": _saved(np.zeros((MOST_BYTES // 16 + 1, 4), np.float32)),
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_a_file_that_is_none_is_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert kept_questions(tmp_path, MODEL).shape == (0, 4)
    keep_questions(tmp_path, MODEL, QUESTIONS)
    np.testing.assert_array_equal(kept_questions(tmp_path, MODEL), QUESTIONS)


@pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "device"])
def test_what_is_no_plain_file_is_not_read_and_not_written_through(tmp_path: Path, kind: str) -> None:
    (tmp_path / "victim").write_bytes(_saved(QUESTIONS))
    path = tmp_path / "vectors" / NAME
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "hard link":
        os.link(tmp_path / "victim", path)
    else:
        path.symlink_to(tmp_path / "victim" if kind == "link" else "/dev/zero")
    assert kept_questions(path.parent, MODEL).shape == (0, 4)
    keep_questions(path.parent, MODEL, QUESTIONS + 1)
    np.testing.assert_array_equal(kept_questions(path.parent, MODEL), QUESTIONS + 1)
    assert (tmp_path / "victim").read_bytes() == _saved(QUESTIONS)


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_a_folder_that_is_a_link_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "vectors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotPlainFile, match="is a link"):
        keep_questions(tmp_path / "vectors", MODEL, QUESTIONS)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_name_that_is_taken_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(LibraryError, match="cannot be written"):
        keep_questions(tmp_path, MODEL, QUESTIONS)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_fingerprint_is_no_path(tmp_path: Path) -> None:
    """It comes from the catalog."""
    (tmp_path / "vectors" / "questions-..").mkdir(parents=True)
    model = Model(1, "../../../victim", "name", 4)
    keep_questions(tmp_path / "vectors", model, QUESTIONS)
    assert not list(tmp_path.glob("*.npy"))
    assert len(kept_questions(tmp_path / "vectors", model)) == 5
