"""The files of a model folder are plain, bounded and inside of it; its digest follows all that loading depends on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mmsearch.errors import CheckpointError
from mmsearch.models import files
from mmsearch.models.files import SHIPPED, digest_of, files_of, look_at, read_file, read_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "part").mkdir(parents=True)
    (made / "model.json").write_text('{"a": 1}')
    (made / "part" / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"12345678")
    (made / "README.md").write_text("for people")
    return made


def test_what_is_there(folder: Path) -> None:
    assert [(file.name, file.size_bytes) for file in files_of(folder)] == [
        ("model.json", 8),
        ("model.safetensors", 8),
        ("part/config.json", 2),
    ]
    assert read_json(folder, "model.json") == {"a": 1}
    with pytest.raises(FileNotFoundError):
        read_file(folder, "gone.json")


def test_a_file_larger_than_any_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="is larger than"):
        read_file(folder, "model.json", 7)
    monkeypatch.setattr(files, "TEXT_BYTES", 7)
    with pytest.raises(CheckpointError, match="is larger than"):
        files_of(folder)


@pytest.mark.parametrize("text", ["{", "\udcff", "[" * 200_000])
def test_what_is_no_json_is_one_line(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text, errors="surrogateescape")
    with pytest.raises(CheckpointError, match="cannot be read as a model") as told:
        read_json(folder, "model.json")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("../secret")]
)
def test_what_is_no_plain_file_inside_is_refused(folder: Path, make: Callable[[Path], object]) -> None:
    (folder.parent / "secret").write_text("{}")
    make(folder / "tokenizer.json")
    for look in (look_at, read_file):
        with pytest.raises((CheckpointError, IsADirectoryError)):
            look(folder, "tokenizer.json")


def test_links_within_are_followed_and_folders_that_lead_away_are_not(folder: Path) -> None:
    (folder / "tokenizer.json").symlink_to("part/config.json")
    assert read_file(folder, "tokenizer.json") == b"{}"
    (folder / "elsewhere").symlink_to(folder.parent)
    with pytest.raises(CheckpointError, match="is a link or lies too deep"):
        files_of(folder)


def test_a_folder_of_very_many_files_is_no_model(folder: Path) -> None:
    for number in range(files.MOST_FILES):
        (folder / f"{number}.json").touch()
    with pytest.raises(CheckpointError, match="holds more than"):
        files_of(folder)


def test_the_digest_follows_what_loading_depends_on(folder: Path) -> None:
    def changed(name: str, data: bytes) -> bool:
        before = digest_of(folder)
        (folder / name).write_bytes(data)
        return digest_of(folder) != before

    assert changed("model.json", b'{"a": 2}')
    assert changed("part/config.json", b"[]")
    assert changed("new.onnx", b"")
    assert changed("model.safetensors", b"123456789")
    assert not changed("model.safetensors", b"987654321")  # numbers: the fingerprint is over them
    assert not changed("README.md", b"")


def test_our_own_model_may_lie_behind_an_installers_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, shipped = tmp_path / "store", tmp_path / "default"
    store.mkdir()
    shipped.mkdir()
    (store / "model.json").write_text("{}")
    (shipped / "model.json").symlink_to(store / "model.json")
    monkeypatch.setattr(files, "SHIPPED", shipped)
    assert read_file(shipped, "model.json") == b"{}"
    assert SHIPPED.name == "default"
