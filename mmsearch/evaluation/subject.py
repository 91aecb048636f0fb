"""What every evaluation begins and ends with: a model, a data set, posteriors in batches, the facts of a report.

In: a data set's path and a model's name, or both in hand. Out: a `Subject`, what one evaluation measures.
Next: `evaluate.py`, `phrasing.py`, `zero_shot.py`, `fusion_eval.py`, `uncertainty.py`, one question each.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.base.types import Posterior
from mmsearch.data.datasets import Example, read_dataset
from mmsearch.inference.load_model import PRETRAINED, load_model
from mmsearch.inference.pictures import Picture

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)

_BATCH = 256
Item = TypeVar("Item")


class Embedder(Protocol):
    """What is measured: a model as `mmsearch.load_model` returns it."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def fingerprint(self) -> str:
        """sha256 of weights and configuration."""

    def embed_images(self, images: Sequence[Picture]) -> Posterior:
        """Image files, PIL images or uint8 arrays -> posteriors `[n, d]`."""

    def embed_texts(self, texts: list[str]) -> Posterior:
        """Strings -> posteriors `[n, d]`."""


class Facts(TypedDict):
    """What every report says of its subject."""

    model: str
    fingerprint: str
    data: str
    split: str
    seconds: float


@dataclass(frozen=True)
class Subject:
    """A model and the captioned pictures it is measured on.

    Attributes:
        model: what is measured.
        examples: pictures with their captions.
        data: for the report, like `split`.
        folder: where the model's decoders are, if anywhere.
    """

    model: Embedder
    examples: Sequence[Example]
    data: str = ""
    split: str = ""
    folder: Path | None = None
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def load(cls, data: Path, *, split: str = "val", model: str = "default", device: str = "auto") -> Subject:
        """One split of a data set and a model.

        Args:
            data: a folder or file that `datasets.read_dataset` knows.
            split: which part of it.
            model: what `load_model` takes.
            device: `auto`, `cpu` or `cuda`.

        Raises:
            DataError: a data set that cannot be read.
            ModelError: a model that cannot be loaded.
        """
        examples = read_dataset(Path(data), split)
        folder = PRETRAINED / "default" if model == "default" else Path(model).expanduser()
        return cls(load_model(model, device), examples, str(data), split, folder)

    @property
    def facts(self) -> Facts:
        """For the report, which is written now."""
        return {
            "model": self.model.name,
            "fingerprint": self.model.fingerprint,
            "data": self.data,
            "split": self.split,
            "seconds": time.monotonic() - self.started,
        }

    @cached_property
    def captions(self) -> list[str]:
        """All captions, picture by picture `[m]`."""
        return [caption for example in self.examples for caption in example.captions]

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """The row of the picture that each caption belongs to `[m]`."""
        return np.repeat(np.arange(len(self.examples)), [len(example.captions) for example in self.examples])

    def pictures(self) -> Posterior:
        """Posteriors of all pictures `[n, d]`. Raises: DecodeError."""
        return in_batches(self.model.embed_images, [example.image for example in self.examples], "pictures")

    def texts(self, texts: Sequence[str], what: str = "captions") -> Posterior:
        """Posteriors of texts `[m, d]`."""
        return in_batches(self.model.embed_texts, list(texts), what)


def in_batches(embed: Callable[[list[Item]], Posterior], items: list[Item], what: str) -> Posterior:
    """Posteriors `[n, d]` of any number of items, a few hundred at a time; `what` they are is for the log."""
    parts = []
    for start in range(0, len(items), _BATCH):
        parts.append(embed(items[start : start + _BATCH]))
        log.info("%s: %d of %d", what, min(start + _BATCH, len(items)), len(items))
    return joined(parts)


def joined(parts: Sequence[Posterior]) -> Posterior:
    """Posteriors one below the other."""
    return Posterior(np.concatenate([p.mu for p in parts]), np.concatenate([p.logvar for p in parts]))


class Report:
    """A dataclass of results that prints itself."""

    def to_dict(self: DataclassInstance) -> dict[str, Any]:
        """The report as `--json` prints it, numbers rounded to what the data can tell."""
        printed: dict[str, Any] = rounded(asdict(self))
        return printed


def rounded(value: Any) -> Any:
    """Numbers of a report, nested in dictionaries, rounded to what the data can tell."""
    if isinstance(value, float) and abs(value) >= 1000:
        return round(value)
    if isinstance(value, float):
        return round(value, 2 if abs(value) >= 1 else 4)
    return {key: rounded(inner) for key, inner in value.items()} if isinstance(value, dict) else value
