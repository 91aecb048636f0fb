"""TOML into dataclasses: every supported type, and every way to get it wrong, in one line that names file and key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from mmsearch.config import Config, config_path, default_library, load_config, read_toml
from mmsearch.errors import ConfigError


@dataclass(frozen=True)
class Source:
    path: Path
    split: str = "train"
    weight: float = 1.0


@dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    schedule: Literal["cosine", "constant"] = "cosine"


@dataclass(frozen=True)
class Recipe:
    name: str
    epochs: int = 3
    amp: bool = False
    seed: int | None = None
    layers: tuple[int, ...] = ()
    optimizer: Optimizer = field(default_factory=Optimizer)
    data: tuple[Source, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    trunk: Path | None = None
    limit: int | str = "all"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_supported_type(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        name = "heads"
        epochs = 5
        amp = true
        seed = 7
        layers = [64, 128]
        trunk = "trunk.safetensors"
        limit = 10
        [optimizer]
        learning_rate = 1
        betas = [0.9, 0.999]
        schedule = "constant"
        [weights]
        image = 2
        [[data]]
        path = "photos/a"
        [[data]]
        path = "photos/b"
        split = "val"
        weight = 0.5
        """,
    )
    assert read_toml(Recipe, path) == Recipe(
        name="heads",
        epochs=5,
        amp=True,
        seed=7,
        layers=(64, 128),
        optimizer=Optimizer(learning_rate=1.0, betas=(0.9, 0.999), schedule="constant"),
        data=(Source(Path("photos/a")), Source(Path("photos/b"), "val", 0.5)),
        weights={"image": 2.0},
        trunk=Path("trunk.safetensors"),
        limit=10,
    )
    assert type(read_toml(Recipe, path).optimizer.learning_rate) is float


def test_defaults_stand_where_the_file_is_silent(tmp_path: Path) -> None:
    assert read_toml(Recipe, write(tmp_path, 'name = "x"')) == Recipe(name="x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "x"\nepoch = 3', ["unknown key 'epoch'", "'epochs'"]),
        ('name = "x"\nzzzzz = 3', ["unknown key 'zzzzz'", "known keys", "'optimizer'"]),
        ('name = "x"\n[optimizer]\nlearning_rat = 3', ["unknown key 'optimizer.learning_rat'", "'learning_rate'"]),
        ('name = "x"\n[[data]]\npath = "a"\n[[data]]\npaths = "b"', ["unknown key 'data[1].paths'", "'path'"]),
        ('name = "x"\n[[data]]\nsplit = "a"', ["missing key 'data[0].path'", "a path"]),
        ("epochs = 3", ["missing key 'name'", "a string"]),
        ("name = 3", ["key 'name' is 3", "a string"]),
        ('name = "x"\nepochs = 3.5', ["key 'epochs' is 3.5", "a whole number"]),
        ('name = "x"\nepochs = true', ["key 'epochs' is True", "a whole number"]),
        ('name = "x"\namp = 1', ["key 'amp' is 1", "true or false"]),
        ('name = "x"\nseed = "a"', ["key 'seed' is 'a'", "a whole number"]),
        ('name = "x"\nlayers = ["a"]', ["key 'layers[0]' is 'a'", "a whole number"]),
        ('name = "x"\nlayers = 3', ["key 'layers' is 3", "an array of a whole number"]),
        ('name = "x"\noptimizer = 3', ["key 'optimizer' is 3", "a table"]),
        ('name = "x"\n[optimizer]\nschedule = "linear"', ["'optimizer.schedule' is 'linear'", "'cosine', 'constant'"]),
        ('name = "x"\n[optimizer]\nbetas = [0.9]', ["'optimizer.betas'", "an array of"]),
        ('name = "x"\n[optimizer]\nlearning_rate = nan', ["'optimizer.learning_rate' is nan", "finite"]),
        ('name = "x"\nlimit = 1.5', ["key 'limit' is 1.5", "a whole number or a string"]),
        ("name = \nepochs = 3", ["not valid TOML", "line 1"]),
    ],
)
def test_a_bad_file_names_itself_the_key_and_what_was_expected(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_toml(Recipe, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_file_and_a_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_toml(Recipe, tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_toml(Recipe, tmp_path / "binary.toml")


def test_the_users_configuration_lives_under_mmsearch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path))
    assert config_path() == tmp_path / "config.toml"
    assert default_library() == tmp_path / "library"
    assert load_config() == Config()
    config_path().write_text('model = "clip-ViT-B-32"\nk = 3\n', encoding="utf-8")
    assert load_config() == Config(model="clip-ViT-B-32", k=3)


def test_without_the_variable_the_platforms_folders_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMSEARCH_HOME", raising=False)
    assert config_path().name == "config.toml"
    assert config_path().parent.name == "mmsearch"
    assert default_library().name == "library"


def test_values_out_of_range_name_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "k = 0")
    with pytest.raises(ConfigError, match=r"recipe\.toml: key 'k' is 0; expected 1 or more"):
        load_config(path)
