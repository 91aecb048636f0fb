"""The models that this user has: the one that ships, and those named before on this machine, by their fingerprints.

What a library, an archive or a folder of heads says of its model is a fingerprint and a label. The fingerprint is
looked up here; the label is only shown, since a name from elsewhere could stand for anything on this disk or the hub.

In: fingerprints; models that a person named or made. Out: names for `load_model`. Next: `load_model.py`,
`../model_choice.py`.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from indexer.base.personal import remember, remembered
from mmsearch.errors import CheckpointError, ModelNotNamed
from mmsearch.models.digest import DESCRIPTION, read_description
from mmsearch.models.files import SHIPPED

if TYPE_CHECKING:  # a search pays for no protocol
    from typing import Protocol

    class Named(Protocol):
        """A model, stored or loaded."""

        @property
        def name(self) -> str:
            """A label."""

        @property
        def fingerprint(self) -> str:
            """What it is known by."""


DEFAULT_MODEL: Final = "default"
MODELS: Final = "models"  # the facts: fingerprint -> name, or absolute path
LABEL_CHARACTERS: Final = 80


def known_models() -> dict[str, str]:
    """Every model this user has: fingerprint -> a name for `load_model`."""
    return {**remembered(MODELS), _shipped_fingerprint(): DEFAULT_MODEL}


def name_of(stored: Named) -> str:
    """What this user calls the model that is stored. Raises: ModelNotNamed."""
    name = known_models().get(stored.fingerprint)
    if name is None:
        raise not_named(stored)
    return name


def not_named(stored: Named) -> ModelNotNamed:
    """The error for a model that only a library names; of the label a part is shown, its control characters visible."""
    return ModelNotNamed(
        f"the library was written with a model that was never named here, called {label(stored.name)} "
        f"({stored.fingerprint[:12]}); if you trust it, name it once: '--model NAME' or '--model FOLDER' with "
        "'mmsearch search', or model = in config.toml"
    )


def label(name: object) -> str:
    """A name from elsewhere, to be shown: quoted, short, without control characters."""
    text = str(name)
    return repr(text if len(text) <= LABEL_CHARACTERS else text[:LABEL_CHARACTERS] + "...")


def remember_model(encoder: Named, name: str | Path) -> None:
    """Keep a model that the user named and that was loaded, and the backbone under its heads."""
    _remember(encoder.fingerprint, name)
    backbone: Named | None = getattr(encoder, "backbone", None)
    if backbone is not None:
        _remember(backbone.fingerprint, backbone.name)


def remember_made(folder: Path) -> None:
    """Keep a model folder that this user's own command just wrote."""
    _remember(fingerprint_of(read_description(folder)), folder)


def declared_fingerprint(name: str) -> str | None:
    """The fingerprint of the model folder `name`, without loading it; None where it is none, or a bare backbone."""
    folder = Path(name).expanduser()
    try:
        return fingerprint_of(read_description(folder)) if (folder / DESCRIPTION).exists() else None
    except (CheckpointError, OSError):
        return None


def fingerprint_of(described: dict[str, Any]) -> str:
    """The fingerprint of the model that `model.json` describes: of heads, that of both parts."""
    own, backbone = str(described["fingerprint"]), described.get("backbone_fingerprint")
    return own if backbone is None else with_heads(str(backbone), own)


def with_heads(backbone_fingerprint: str, heads_digest: str) -> str:
    """The fingerprint of a backbone with heads, hex."""
    return hashlib.sha256(f"{backbone_fingerprint}\n{heads_digest}".encode()).hexdigest()


def full_name(model: str | Path) -> str:
    """The name that is remembered: a path is made absolute, so that it holds from every folder."""
    path = Path(model).expanduser()
    return str(path.absolute()) if str(model) != DEFAULT_MODEL and path.exists() else str(model)


def _remember(fingerprint: str, name: str | Path) -> None:
    if fingerprint != _shipped_fingerprint():
        remember(MODELS, fingerprint, full_name(name))


@cache
def _shipped_fingerprint() -> str:
    try:
        return str(read_description(SHIPPED)["fingerprint"])
    except CheckpointError:  # a checkout without the model
        return ""
