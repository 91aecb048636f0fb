"""`mmsearch eval --zero-shot`: is a photo's name the nearest of all the names of a data set?

    labels -> distinct names -> one vector a name, the mean over sentences it stands in -> rank of each photo's own

In: a data set whose captions are labels, a model, and a file that says whose photos to take (classes that were held out
of training, say) while every name competes. Out: a `ZeroShotReport`. Sentences around the name are averaged on the unit
sphere, after Radford et al. (2021, section 3.1.4, https://arxiv.org/abs/2103.00020); hubness is that of the mean. Next:
`recall.py`, which ranks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsearch.data.datasets import Example, read_dataset, read_names, same_name
from mmsearch.errors import DataError
from mmsearch.evaluation.recall import hubness_of, recall, unit_rows
from mmsearch.evaluation.subject import Embedder, Report, Subject, in_batches

log = logging.getLogger(__name__)

TEMPLATES = ("{}", "a {}", "a photo of a {}", "a picture of the {}")


@dataclass(frozen=True)
class ZeroShotReport(Report):
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


def evaluate_zero_shot(
    subject: Subject,
    names: Iterable[str] | None = None,
    *,
    only: Path | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> ZeroShotReport:
    """Name photos among all names of their data set, whatever their split.

    Names that differ in case, underscores or spaces alone are one name: no search could mean one and not the other.
    Of a photo with several labels the best-ranked counts. A tie counts against us.

    Args:
        subject: model and photos, each with its label as caption.
        names: all that compete, every label among them; None takes the labels of the whole data set.
        only: a file of names, one a line; photos with another label are not asked about.
        templates: sentences with `{}` for the name.

    Raises:
        DataError: no photos, a label that is not among the names, a file of names that cannot be read or leaves none.
        DecodeError: a picture that cannot be read.
        ValueError: no template, or one without `{}`.
    """
    if not templates or any("{}" not in template for template in templates):
        raise ValueError(f"templates {list(templates)}; give at least one, each with {{}} where the name goes")
    examples = subject.examples if only is None else _only(subject.examples, only)
    if names is None:
        names = [caption for example in read_dataset(Path(subject.data)) for caption in example.captions]
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
    model = subject.model
    photos = in_batches(model.embed_images, [example.image for example in examples], "pictures")
    vectors = name_vectors(model, list(distinct.values()), templates)
    cosine = recall(photos.mu, vectors, own)
    hubness = hubness_of(model, "image", vectors)
    found = cosine if hubness is None else recall(photos.mu, vectors, own, hubness)
    return ZeroShotReport(
        top1=found.r1,
        top5=found.r5,
        cosine_top1=None if hubness is None else cosine.r1,
        cosine_top5=None if hubness is None else cosine.r5,
        images=len(examples),
        names=len(distinct),
        templates=tuple(templates),
        only=None if only is None else str(only),
        **subject.facts,
    )


def name_vectors(model: Embedder, names: Sequence[str], templates: Sequence[str]) -> NDArray[np.float64]:
    """One vector a name `[n, d]`: the mean of the unit vectors of its sentences; its length says how they agree."""
    total: NDArray[np.float64] | float = 0.0
    for template in templates:
        texts = [template.replace("{}", name) for name in names]
        total = total + unit_rows(in_batches(model.embed_texts, texts, f"names as '{template}'").mu)  # [n, d]
    return np.asarray(total) / len(templates)


def _only(examples: Sequence[Example], file: Path) -> list[Example]:
    """The examples all of whose labels stand in a file of names, one a line."""
    wanted = read_names(Path(file))
    chosen = [example for example in examples if all(same_name(label) in wanted for label in example.captions)]
    if not chosen:
        raise DataError(f"none of the {len(wanted)} names in {file} is the label of a photo; give labels, one a line")
    absent = wanted - {same_name(label) for example in chosen for label in example.captions}
    if absent:
        log.warning("%d of %d names in %s have no photo, first '%s'", len(absent), len(wanted), file, min(absent))
    return chosen
