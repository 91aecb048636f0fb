"""The types on the border between the indexer and the model: posteriors, the `Encoder` Protocol, reports of a run.

In: nothing of this project. Out: used by the whole indexer, and by `mmsearch`, which implements `Encoder`. Needs numpy
only, so that the indexer's tests run without torch. Next: `files/scan.py`, the first step of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a search for words imports no Pillow
    from PIL import Image

Modality = Literal["image", "text"]
Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]

# values of the column `vectors.kind`: what a vector represents
HIDDEN: Final = 0  # not in the index
IMAGE: Final = 1  # a photo, by its fused vector where it has captions
TEXT: Final = 2  # a text file that is no caption
CAPTION: Final = 3  # a caption of a photo: found in searches for texts only; elsewhere its photo represents it


@dataclass(frozen=True, eq=False)
class Posterior:
    """Diagonal Gaussians `q(z|x) = N(mu, diag exp(logvar))`, one per row.

    Attributes:
        mu: means, float32 `[n, d]`, not normalised; these are the search vectors.
        logvar: log variances, float32 `[n, d]`, below zero so that every expert adds information.
    """

    mu: Float32Array
    logvar: Float32Array

    def __len__(self) -> int:
        return len(self.mu)

    def __getitem__(self, rows: slice | NDArray[np.int64] | Sequence[int]) -> Posterior:
        return Posterior(self.mu[rows], self.logvar[rows])


class Encoder(Protocol):
    """What the indexer needs from a model. `prepare_image` must be thread-safe; the rest is called from one thread."""

    @property
    def name(self) -> str:
        """The name the user gives: `default`, a path, `clip-ViT-B-32`."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights and configuration in hexadecimal; stored with every vector."""

    @property
    def dim(self) -> int:
        """Latent size d."""

    @property
    def side_px(self) -> int:
        """Side of the square input image in pixels; the decoder scales JPEGs down to about twice that."""

    def prepare_image(self, image: Image.Image) -> UInt8Array:
        """One upright RGB picture of any size -> uint8 `[side_px, side_px, 3]`."""

    def encode_images(self, batch: UInt8Array) -> Posterior:
        """uint8 `[n, side_px, side_px, 3]` -> posteriors `[n, d]`."""

    def encode_texts(self, texts: Sequence[str]) -> Posterior:
        """Strings -> posteriors `[n, d]`."""

    def fuse(self, posteriors: Sequence[Posterior]) -> Posterior:
        """Product of experts with the prior over several posteriors, each `[n, d]`."""


@dataclass(frozen=True)
class Model:
    """A row of `models`: the model that made the vectors."""

    id: int
    fingerprint: str
    name: str
    dim: int


StageName = Literal["scan", "decode", "encode", "store", "captions", "index_file"]
STAGES: Final[tuple[StageName, ...]] = ("scan", "decode", "encode", "store", "captions", "index_file")


@dataclass(frozen=True)
class Stage:
    """One stage of an index run.

    Attributes:
        items: number of files; of `captions` texts encoded and photos fused, of `index_file` vectors written.
        seconds: the sum over all its threads, waiting included.
        cpu_s: processor time, that of its helper threads and processes included.
    """

    name: StageName
    items: int
    seconds: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        """Items per second and thread."""
        return self.items / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Profile:
    """Where the time of an index run went.

    Attributes:
        seconds: wall time.
        cores: number of cores that the process may use.
        waited_s: wall time in which encoding and storing waited for a decoded file.
        rest_cpu_s: processor time outside of all stages.
        stages: `scan`, `decode` (reading and hashing included), `encode`, `store`, `captions` (pairing and fusion),
            `index_file`.
    """

    seconds: float
    cores: int
    waited_s: float
    rest_cpu_s: float
    stages: tuple[Stage, ...]

    def busy(self, cpu_s: float) -> float:
        """`cpu_s` as a share of the time of all cores, 0 to 1."""
        return cpu_s / (self.seconds * self.cores) if self.seconds > 0 else 0.0

    @property
    def idle(self) -> float:
        """The share of the time of all cores that this run did not use, 0 to 1."""
        return max(0.0, 1 - self.busy(self.rest_cpu_s + sum(stage.cpu_s for stage in self.stages)))

    def to_dict(self) -> dict[str, object]:
        """The profile as `mmsearch index --json --profile` prints it."""
        stages = {
            one.name: {
                "items": one.items,
                "seconds": round(one.seconds, 3),
                "items_per_second": round(one.per_second, 1),
                "busy": round(self.busy(one.cpu_s), 4),
            }
            for one in self.stages
        }
        return {"cores": self.cores, "idle": round(self.idle, 4), "waited_s": round(self.waited_s, 3), "stages": stages}


@dataclass(frozen=True)
class IndexReport:
    """What one `index` run did. Counts are files, except `encoded`: vectors computed. `seconds` is wall time.

    `postponed` counts those of the `skipped` that could not be read now (no right, an error of the disk, a decoder
    killed from outside), which the next run tries again; `offline` the files below the folder that are hidden because
    their drive or folder is not there now; `excluded` those that this run hid because a pattern or their name excludes
    them now. `rebuild` has no `profile`.
    """

    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    skipped: int = 0
    postponed: int = 0
    offline: int = 0
    excluded: int = 0
    encoded: int = 0
    seconds: float = 0.0
    profile: Profile | None = None

    def to_dict(self, *, profile: bool = False) -> dict[str, object]:
        """The report as `mmsearch index --json` prints it; `profile` is for `--profile`."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "profile"}
        return values | ({"profile": self.profile.to_dict()} if profile and self.profile is not None else {})


@dataclass(frozen=True)
class Progress:
    """The state of a running index run. Counts are files; `total` is None until the scan is done."""

    done: int
    total: int | None
    skipped: int
    path: str = ""


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class IndexFacts:
    """What was measured when an index file was written; the numbers are those of an IVF index.

    Attributes:
        form: how it is searched.
        lists: number of inverted lists.
        nprobe: how many of them a search looks at.
        depth: how many candidates are ranked again for ten results.
        trained_on: number of vectors when the centroids were trained.
        recall_at_10: of questions that are texts, on average.
        recall_at_10_low: its lower bound, one-sided, 95 %.
        questions: how many texts that is measured with.
    """

    form: Literal["exact", "ivf"] = "exact"
    lists: int = 0
    nprobe: int = 0
    depth: int = 0
    trained_on: int = 0
    recall_at_10: float | None = None
    recall_at_10_low: float | None = None
    questions: int = 0


EXACT_SEARCH: Final = IndexFacts()
