"""Which model a call needs: the one asked for, else the one the library was written with, else the configured one.

The person who runs the command chooses. A library says only by which fingerprint its model is known; what this user
calls it is looked up (`inference/known_models.py`), and a model that this user never named is not loaded.

In: what was asked for, what is stored, what is configured, what is known. Out: by `resolve` a `Choice`, pure, so that a
test runs through every combination; by `LibraryModel` the loaded model.
Next: `library.py`, which asks; `inference/load_model.py`, which loads.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from indexer.base.types import Encoder, Modality, Model
from mmsearch.errors import ModelMismatch, ModelNotFound
from mmsearch.inference.known_models import (
    DEFAULT_MODEL,
    declared_fingerprint,
    full_name,
    known_models,
    not_named,
    remember_model,
)

if TYPE_CHECKING:
    from indexer.search.query_bank import QueryBank


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


def resolve(requested: str | Encoder | None, stored: Model | None, configured: str, known: Mapping[str, str]) -> Choice:
    """The model of a call.

    Args:
        requested: what the caller named or gave; None leaves it to the library.
        stored: the model that the library was written with; None for a new library.
        configured: the name in the configuration, for a new library.
        known: the models that this user has, fingerprint -> name.

    Raises:
        ModelNotNamed: the library's model is none of them.
    """
    if stored is None:
        return Choice(configured, "configured", False) if requested is None else Choice(requested, "requested", False)
    named = known.get(stored.fingerprint)
    if isinstance(requested, str):
        return Choice(requested, "requested", requested == named)
    if requested is not None:
        return Choice(requested, "requested", requested.fingerprint == stored.fingerprint)
    if named is not None:
        return Choice(named, "stored", True)
    if configured != DEFAULT_MODEL and configured not in known.values():
        return Choice(configured, "configured", False)  # whether it wrote the library only loading it tells
    raise not_named(stored)


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
        self._loading = threading.Lock()  # threads that share a library load its model once

    def choose(self, stored: Model | None) -> Choice:
        """The choice of `resolve`, with names as they are remembered. Raises: ModelNotNamed."""
        requested, configured = self.requested, full_name(self._configured)
        name = full_name(requested) if isinstance(requested, (str, Path)) else requested
        known = known_models()
        for one in (name, configured):  # a folder says by itself which model it holds
            if stored is not None and stored.fingerprint not in known and isinstance(one, str):
                known |= {stored.fingerprint: one} if declared_fingerprint(one) == stored.fingerprint else {}
        return resolve(name, stored, configured, known)

    def load(self, stored: Model | None, *, may_download: bool = False) -> Encoder:
        """The model that `resolve` chooses; one that is named now is remembered, and may be downloaded.

        Raises: ModelError, CheckpointError; ModelNotNamed; ModelMismatch: the folder of the library's model holds
        other weights by now.
        """
        with self._loading:
            return self._load(stored, may_download)

    def _load(self, stored: Model | None, may_download: bool) -> Encoder:
        decided = stored is None or self.requested is not None
        if self._loaded is not None and (decided or self._holds(stored)):
            return self._loaded
        choice = self.choose(stored)
        if not isinstance(choice.model, str):
            return choice.model
        if choice.source == "stored" and stored is not None:
            _check_unchanged(choice.model, stored)
        try:
            loaded = load_encoder(choice.model, self._device)
        except ModelNotFound:
            if not (may_download and choice.source == "requested"):
                raise
            from mmsearch.inference.hub import download

            download(choice.model)
            loaded = load_encoder(choice.model, self._device)
        if choice.source != "stored":
            remember_model(loaded, choice.model)
        if choice.source == "configured" and stored is not None and loaded.fingerprint != stored.fingerprint:
            raise not_named(stored)
        self._loaded = loaded
        return loaded

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
        with self._loading:
            self.requested, self._loaded = requested, None

    def forget(self) -> None:
        """Load the model again when it is needed next, unless it was given loaded."""
        with self._loading:
            self._loaded = None

    def _holds(self, stored: Model | None) -> bool:
        loaded = self._loaded  # another thread may forget it
        return loaded is not None and stored is not None and loaded.fingerprint == stored.fingerprint


def _check_unchanged(name: str, stored: Model) -> None:
    """Refuse a folder that was exchanged since it was named, before anything of it is loaded. Raises: ModelMismatch."""
    found = declared_fingerprint(name)
    if found is not None and found != stored.fingerprint:
        raise ModelMismatch(
            f"model '{name}' holds other weights now ({found[:12]}) than wrote the library "
            f"({stored.fingerprint[:12]}); 'mmsearch rebuild --model' it to go over to them"
        )


def load_encoder(name: str, device: str) -> Encoder:
    """`open_model`, imported when a model is needed; tests put a stand-in here."""
    from mmsearch.inference.load_model import open_model

    return open_model(name, device)
