"""`mmsearch eval --zero-shot`: is a photo's name the nearest of all the names of a data set?

    labels -> distinct names -> one vector a name, the mean over sentences it stands in -> rank of each photo's own

In: a data set whose captions are labels, a model, and a file that says whose photos to take (classes that were held out
of training, say) while every name competes. Out: a `ZeroShotReport`. Sentences around the name are averaged on the
unit sphere, after Radford et al. (2021, section 3.1.4); hubness is that of the mean. Next: `recall.py`, which ranks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.data.datasets import Example, read_dataset
from mmsearch.errors import DataError
from mmsearch.evaluation.evaluate import Embedder, in_batches, rounded
from mmsearch.evaluation.recall import best_ranks, hubness_of

log = logging.getLogger(__name__)

TEMPLATES = ("{}", "a {}", "a photo of a {}", "a picture of the {}")


@dataclass(frozen=True)
class ZeroShotReport:
    """How often a photo's own name is the first, or among the first five, of all names.

    Names are ranked as a search by a picture ranks texts: by cosine, less their hubness where the model has a bank.

    Attributes:
        top1: percent of the photos. top5: the same.
        images: photos asked about.
        names: distinct names that competed.
        templates: the sentences each name was put in.
        cosine_top1: `top1` by cosine alone; None without a bank, where `top1` is that. cosine_top5: the same.
    """

    top1: float
    top5: float
    images: int
    names: int
    templates: tuple[str, ...] = TEMPLATES
    cosine_top1: float | None = None
    cosine_top5: float | None = None
    model: str = ""
    fingerprint: str = ""
    data: str = ""
    split: str = ""
    only: str | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        printed: dict[str, Any] = rounded(asdict(self))
        return printed


def evaluate_zero_shot(
    data: Path,
    *,
    split: str = "val",
    model: str = "default",
    device: str = "auto",
    only: Path | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> ZeroShotReport:
    """Name the photos of one split among all names of the data set, whatever their split.

    Args:
        data: a folder or file that `datasets.read_dataset` knows, its captions being labels.
        split: whose photos are asked about.
        model: what `load_model` takes.
        device: `auto`, `cpu` or `cuda`.
        only: a file of names, one a line; photos with another label are not asked about.
        templates: sentences with `{}` for the name.

    Raises:
        DataError: a data set or a file of names that cannot be read or leaves no photo.
        DecodeError: a picture that cannot be read.
        ModelError: a model that cannot be loaded.
    """
    from mmsearch.inference.load_model import load_model

    asked = read_dataset(Path(data), split)
    if only is not None:
        asked = _only(asked, only)
    names = [caption for example in read_dataset(Path(data)) for caption in example.captions]
    return zero_shot(
        load_model(model, device),
        asked,
        names,
        templates=templates,
        data=str(data),
        split=split,
        only=None if only is None else str(only),
    )


def zero_shot(
    model: Embedder,
    examples: Sequence[Example],
    names: Iterable[str],
    *,
    templates: Sequence[str] = TEMPLATES,
    data: str = "",
    split: str = "",
    only: str | None = None,
) -> ZeroShotReport:
    """The same for a model in hand and examples already read.

    Names that differ in case, underscores or spaces alone are one name: no search could mean one and not the other.
    Of a photo with several labels the best-ranked counts. A tie counts against us.

    Args:
        model: what is measured.
        examples: photos, each with its label as caption.
        names: all that compete; every label is among them.
        templates: sentences with `{}` for the name.
        data: for the report, like `split` and `only`.

    Raises:
        DataError: no photos, a label that is not among the names.
        ValueError: no template, or one without `{}`.
    """
    started = time.monotonic()
    if not templates or any("{}" not in template for template in templates):
        raise ValueError(f"templates {list(templates)}; give at least one, each with {{}} where the name goes")
    if not examples:
        raise DataError("no photos to name; give a data set of pictures and their labels")
    distinct: dict[str, str] = {}
    for name in names:
        distinct.setdefault(same_name(name), name.replace("_", " "))
    row = {key: i for i, key in enumerate(distinct)}
    own = [[row[key] for label in example.captions if (key := same_name(label)) in row] for example in examples]
    for example, rows in zip(examples, own, strict=True):
        if len(rows) < len(example.captions):
            raise DataError(f"{example.image}: a label of {list(example.captions)} is not among the {len(row)} names")
    photos = in_batches(model.embed_images, [example.image for example in examples], "pictures")
    vectors = name_vectors(model, list(distinct.values()), templates)
    by_cosine = best_ranks(photos.mu, vectors, own)  # [n]
    hubness = hubness_of(model, "image", vectors)
    ranks = by_cosine if hubness is None else best_ranks(photos.mu, vectors, own, hubness)
    return ZeroShotReport(
        top1=_among(ranks, 1),
        top5=_among(ranks, 5),
        cosine_top1=None if hubness is None else _among(by_cosine, 1),
        cosine_top5=None if hubness is None else _among(by_cosine, 5),
        images=len(examples),
        names=len(distinct),
        templates=tuple(templates),
        model=model.name,
        fingerprint=model.fingerprint,
        data=data,
        split=split,
        only=only,
        seconds=time.monotonic() - started,
    )


def name_vectors(model: Embedder, names: Sequence[str], templates: Sequence[str]) -> NDArray[np.float64]:
    """One vector a name `[n, d]`: the mean of the unit vectors of its sentences; its length says how they agree."""
    total: NDArray[np.float64] | float = 0.0
    for template in templates:
        texts = [template.replace("{}", name) for name in names]
        mu = in_batches(model.embed_texts, texts, f"names as '{template}'").mu.astype(np.float64)  # [n, d]
        lengths = np.linalg.norm(mu, axis=1, keepdims=True)
        total = total + mu / np.where(lengths > 0, lengths, 1.0)
    return np.asarray(total) / len(templates)


def same_name(label: str) -> str:
    """What two spellings of a name have in common: `Snow_Leopard` and `snow  leopard`."""
    return " ".join(label.lower().replace("_", " ").split())


def _among(ranks: NDArray[np.int64], k: int) -> float:
    return 100 * float(np.mean(ranks <= k))


def _only(examples: Sequence[Example], file: Path) -> list[Example]:
    """The examples all of whose labels stand in a file of names, one a line."""
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8, one name a line") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; give a file of names, one a line") from error
    wanted = {same_name(line) for line in lines if line.strip()}
    chosen = [example for example in examples if all(same_name(label) in wanted for label in example.captions)]
    if not chosen:
        raise DataError(f"none of the {len(wanted)} names in {file} is the label of a photo; give labels, one a line")
    absent = wanted - {same_name(label) for example in chosen for label in example.captions}
    if absent:
        log.warning("%d of %d names in %s have no photo, first '%s'", len(absent), len(wanted), file, min(absent))
    return chosen
