"""Configuration: TOML in, frozen dataclasses out; and where the configuration and the default library live.

In: `config.toml` in the configuration folder, or any TOML file for any frozen dataclass (a training recipe).
Out: a dataclass, or a `ConfigError` of one line that names the file, the key and the nearest keys known.
Next: `library.py`, which composes everything from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from indexer.base.personal import HOME_VARIABLE
from indexer.files.excludes import compiled as check_patterns
from mmsearch.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """The user's `config.toml`. Every key is optional; an option on the command line wins over it.

    Attributes:
        model: `default`, a path to a trained checkpoint, or the name of a sentence-transformers model.
        device: where to compute and search; `auto` takes the GPU where there is one.
        gpu_index: the form of the vectors' copy on a GPU; `auto` chooses by size, `off` searches on the CPU.
        library: folder of the library; None is the default place, `default_library()`.
        k: number of hits.
        batch_size: files encoded together and committed together.
        exclude: patterns as in a .gitignore, relative to each indexed folder: what `index` passes over.
    """

    model: str = "default"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpu_index: Literal["auto", "flat", "lists", "pq", "cagra", "off"] = "auto"
    library: Path | None = None
    k: int = 10
    batch_size: int = 32
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("k", "batch_size"):
            if getattr(self, key) < 1:
                raise ValueError(f"key '{key}' is {getattr(self, key)}; expected 1 or more")
        if self.exclude:
            check_patterns(self.exclude)


def config_path() -> Path:
    """`$MMSEARCH_HOME/config.toml`, else `config.toml` in the platform's folder for configurations."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser() / "config.toml"
    from platformdirs import user_config_path  # not needed, and not paid for, where the variable is set

    return user_config_path("mmsearch") / "config.toml"


def default_library() -> Path:
    """`$MMSEARCH_HOME/library`, else `library` in the platform's folder for application data."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser() / "library"
    from platformdirs import user_data_path

    return user_data_path("mmsearch") / "library"


def load_config(path: Path | None = None) -> Config:
    """The user's configuration; the defaults where there is no file.

    Raises:
        ConfigError: the file is there and cannot be used.
    """
    path = config_path() if path is None else path
    return read_toml(Config, path) if path.exists() else Config()


def read_toml(cls: type[T], path: str | Path) -> T:
    """Read `path` into the frozen dataclass `cls`.

    Fields may be bool, int, float, str, Path, Literal, `X | None`, `tuple[X, ...]`, `tuple[X, Y]`, `dict[str, X]`
    and dataclasses, nested (tables, arrays of tables). A missing key takes the field's default. Paths stay as
    written, except that `~` is expanded. A `ValueError` of a `__post_init__` is reported with the file's name.

    Raises:
        ConfigError: no such file, bad TOML, an unknown key, a missing key, a value of the wrong type.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; expected a TOML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    try:
        return _from_table(cls, table, "")
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _from_table(cls: type[T], table: Mapping[str, Any], prefix: str) -> T:
    """One TOML table -> one dataclass. `prefix` is the dotted key of the table, with its final dot."""
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise TypeError(f"read_toml needs a dataclass, got {cls!r}")
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            hint = f"did you mean {_names(near)}?" if near else f"known keys: {_names(sorted(known))}"
            raise ValueError(f"unknown key '{prefix}{key}'; {hint}")
    hints = get_type_hints(cls)
    values = {key: _convert(hints[key], value, prefix + key) for key, value in table.items()}
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ValueError(f"missing key '{prefix}{name}'; expected {_describe(hints[name])}")
    return cls(**values)


def _convert(hint: Any, value: Any, key: str) -> Any:
    """One TOML value -> one value of the type `hint`; a `ValueError` names the key, what was found and expected."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not type(None)]
        for member in members:
            try:
                return _convert(member, value, key)
            except ValueError:
                if len(members) == 1:  # its own message is the clearer
                    raise
    if origin is Literal:
        # `1 == True` in Python; a choice must match in type too
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise _mismatch(hint, value, key)
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(_convert(kinds[i], item, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: _convert(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return _from_table(hint, value, f"{key}.")
    if hint is Any:
        return value
    if hint is Path and isinstance(value, str):
        return Path(value).expanduser()
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise _mismatch(hint, value, key)


def _mismatch(hint: Any, value: Any, key: str) -> ValueError:
    shown = value if isinstance(value, (str, int, float)) else type(value).__name__
    return ValueError(f"key '{key}' is {shown!r}; expected {_describe(hint)}")


def _describe(hint: Any) -> str:
    """A type in the words of a TOML file."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + _names(list(arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(member) for member in arguments if member is not type(None))
    if origin is tuple:
        return "an array of " + ", ".join(_describe(kind) for kind in arguments if kind is not Ellipsis)
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a table"
    words = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a string", Path: "a path"}
    return words.get(hint, str(hint))


def _names(names: list[Any]) -> str:
    return ", ".join(repr(name) for name in names)
