"""Which model a call needs: the one asked for, else the one the library was written with, else the configured one.

In: those three. Out: by `resolve` a `Choice`, pure, so that a test runs through every combination; by `LibraryModel`
the loaded model. Next: `library.py`, which asks; `inference/load_model.py`, which loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from indexer.base.types import Encoder, Modality, Model
from mmsearch.errors import ModelMismatch

if TYPE_CHECKING:
    from indexer.search.query_bank import QueryBank

DEFAULT_MODEL: Final = "default"


@dataclass(frozen=True)
class Choice:
    """The model to use.

    Attributes:
        model: a name for `load_model`, or a model that is loaded already.
        source: who named it.
        wrote_library: whether the stored vectors are this model's, as far as can be told without loading it; False
            where none are stored.
    """

    model: str | Encoder
    source: Literal["requested", "stored", "configured"]
    wrote_library: bool


def resolve(requested: str | Encoder | None, stored: Model | None, configured: str) -> Choice:
    """The model of a call.

    Args:
        requested: what the caller named or gave; None leaves it to the library.
        stored: the model that the library was written with; None for a new library.
        configured: the name in the configuration, for a new library.
    """
    if requested is None:
        return Choice(configured, "configured", False) if stored is None else Choice(stored.name, "stored", True)
    if stored is None:
        return Choice(requested, "requested", False)
    if isinstance(requested, str):
        return Choice(requested, "requested", requested == stored.name)
    return Choice(requested, "requested", requested.fingerprint == stored.fingerprint)


def full_name(model: str | Path) -> str:
    """The name that a library remembers: a path is made absolute, so that it holds from every folder."""
    path = Path(model).expanduser()
    return str(path.absolute()) if str(model) != DEFAULT_MODEL and path.exists() else str(model)


class LibraryModel:
    """The model of one library in one process: loaded at most once, and again where the library has changed its own.

    Args:
        requested: a name, a path, a loaded model, or None for whichever wrote the library.
        configured: the name in the configuration, for a new library.
        device: `auto`, `cpu` or `cuda`.
    """

    def __init__(self, requested: str | Path | Encoder | None, configured: str, device: str) -> None:
        self.requested = requested
        self._configured = configured
        self._device = device
        self._loaded: Encoder | None = None

    def choose(self, stored: Model | None) -> Choice:
        """The choice of `resolve`, with names as a library remembers them."""
        requested = self.requested
        name = full_name(requested) if isinstance(requested, (str, Path)) else requested
        return resolve(name, stored, full_name(self._configured))

    def load(self, stored: Model | None) -> Encoder:
        """The model that `resolve` chooses. Raises: ModelError, CheckpointError."""
        choice = self.choose(stored)
        if not isinstance(choice.model, str):
            return choice.model
        outdated = choice.source == "stored" and stored is not None and not self._holds(stored)
        if self._loaded is None or outdated:
            self._loaded = load_encoder(choice.model, self._device)
        return self._loaded

    def load_matching(self, stored: Model, library: Path) -> Encoder:
        """The model, refused where the vectors of the library at `library` come from another. Raises: ModelMismatch."""
        encoder = self.load(stored)
        if encoder.fingerprint != stored.fingerprint:
            raise ModelMismatch(
                f"{library} was written with model '{stored.name}' ({stored.fingerprint[:12]}), not with "
                f"'{encoder.name}' ({encoder.fingerprint[:12]}); search with the first, "
                "or 'mmsearch rebuild --model' the second"
            )
        return encoder

    def query_bank(self, stored: Model, modality: Modality) -> QueryBank | None:
        """The query bank of the model that wrote the library; the model itself is not loaded for it."""
        from indexer.search.query_bank import bank_of
        from mmsearch.inference.load_model import load_query_bank

        choice = self.choose(stored)
        if isinstance(choice.model, str) and not self._holds(stored):
            return load_query_bank(choice.model, stored.fingerprint, modality)
        return bank_of(self.load(stored), modality)

    def change_to(self, requested: str | Path | Encoder) -> None:
        """Ask for another model from now on."""
        self.requested, self._loaded = requested, None

    def forget(self) -> None:
        """Load the model again when it is needed next, unless it was given loaded."""
        self._loaded = None

    def _holds(self, stored: Model) -> bool:
        return self._loaded is not None and self._loaded.fingerprint == stored.fingerprint


def load_encoder(name: str, device: str) -> Encoder:
    """`load_model`, imported when a model is needed; tests put a stand-in here."""
    from mmsearch.inference.load_model import load_model

    return load_model(name, device)
