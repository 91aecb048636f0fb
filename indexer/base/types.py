"""The values that cross the border between the indexer and whoever computes: posteriors, the encoder, the report.

In: nothing of ours. Out: every other file of the indexer, and `mmsearch`, which implements `Encoder`.
numpy only, so that the indexer's tests run without torch. Next: `scan.py`, where the way of a photo begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a search for words decodes nothing
    from PIL import Image

Modality = Literal["image", "text"]
Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]

# what a vector stands for, in the column `vectors.kind`
HIDDEN: Final = 0  # not in the index
IMAGE: Final = 1  # a photo, by its fused vector where it has captions
TEXT: Final = 2  # a text file that stands alone
CAPTION: Final = 3  # a text that speaks of a photo: found among texts, represented by its photo elsewhere


@dataclass(frozen=True, eq=False)
class Posterior:
    """Diagonal Gaussians `q(z|x) = N(mu, diag exp(logvar))`, one a row.

    Attributes:
        mu: means, float32 `[n, d]`; the search vectors, not normalised.
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
        """What the user calls the model: `default`, a path, `clip-ViT-B-32`."""

    @property
    def fingerprint(self) -> str:
        """sha256 of weights and configuration, hex; stored with every vector."""

    @property
    def dim(self) -> int:
        """Latent size d."""

    @property
    def side_px(self) -> int:
        """Side of the square the model looks at, pixels: lets the decoder use DCT-scaled JPEG decoding."""

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
    """A row of `models`: who made the vectors."""

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
        items: files; of `captions` what was encoded and fused, of `index_file` the vectors written.
        seconds: spent in it by all its threads, waiting included.
        cpu_s: processor time, with that of threads and processes that work for it.
    """

    name: StageName
    items: int
    seconds: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        """Items in a second of a thread that does nothing else."""
        return self.items / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Profile:
    """Where the time of an index run went.

    Attributes:
        seconds: wall time.
        cores: that the process may use.
        waited_s: wall time in which nothing was encoded or stored, since no decoded file was ready.
        rest_cpu_s: processor time in no stage.
        stages: `scan`, `decode` (reading and hashing included), `encode`, `store`, `captions` (pairing and fusion),
            `index_file`.
    """

    seconds: float
    cores: int
    waited_s: float
    rest_cpu_s: float
    stages: tuple[Stage, ...]

    def busy(self, cpu_s: float) -> float:
        """The share of all cores, 0 to 1, that so much processor time is."""
        return cpu_s / (self.seconds * self.cores) if self.seconds > 0 else 0.0

    @property
    def idle(self) -> float:
        """The share of all cores that this run left alone."""
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

    `offline` counts the files below the folder that are hidden because their drive or folder is not there now,
    `excluded` those that this run hid because a pattern or their name excludes them now. `profile` says where the time
    went; `rebuild` has none.
    """

    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    skipped: int = 0
    offline: int = 0
    excluded: int = 0
    encoded: int = 0
    seconds: float = 0.0
    profile: Profile | None = None

    def to_dict(self, *, profile: bool = False) -> dict[str, object]:
        """The report as `mmsearch index --json` prints it, with `--profile` where it was taken."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "profile"}
        return values | ({"profile": self.profile.to_dict()} if profile and self.profile is not None else {})


@dataclass(frozen=True)
class Progress:
    """One heartbeat of an index run. Counts are files; `total` is None while the scan still runs."""

    done: int
    total: int | None
    skipped: int
    path: str = ""


ProgressCallback = Callable[[Progress], None]
