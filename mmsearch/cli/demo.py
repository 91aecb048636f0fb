"""A first look, `make demo`: real photos are indexed, sixteen searches run, and the first hit of each is judged.

In: the photos inside the scikit-image and scikit-learn packages and, in a checkout, the pictures in `data/scenes`.
Out: a `DemoReport`. Pictures are found by what they show: file names take no part. None of the photos is trained on.
Next: `../library.py`, which does the work; `terminal.py`, which prints.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.base.types import Encoder, ProgressCallback
from mmsearch.cli.explain import explain
from mmsearch.cli.terminal import flush, note, only_notes, put, put_json, put_table
from mmsearch.config import Config
from mmsearch.errors import DataError, MMSearchError
from mmsearch.library import Library

CHECKOUT = Path(__file__).parents[2]
SCENES = CHECKOUT / "data" / "scenes"

_SKIMAGE, _SKLEARN = ("skimage", "data"), ("sklearn", "datasets/images")
_UNDER_THEIR_OWN_NAMES = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "horse.png", "moon.png", "page.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip

# the name a photo gets here, and where it lies. Left out of what the packages hold: test patterns (chessboards, a
# colour wheel, a phantom), a logo, a 14-pixel GIF and a crop of 102 pixels
PHOTOS: dict[str, tuple[tuple[str, str], str]] = {
    "cat.png": (_SKIMAGE, "chelsea.png"),
    "clock.png": (_SKIMAGE, "clock_motion.png"),
    "flower.jpg": (_SKLEARN, "flower.jpg"),
    "handwriting.png": (_SKIMAGE, "text.png"),
    "motorcycle-left.png": (_SKIMAGE, "motorcycle_left.png"),
    "motorcycle-right.png": (_SKIMAGE, "motorcycle_right.png"),
    "stars.jpg": (_SKIMAGE, "hubble_deep_field.jpg"),
    "temple.jpg": (_SKLEARN, "china.jpg"),
    "tissue.png": (_SKIMAGE, "ihc.png"),
    **{file: (_SKIMAGE, file) for file in _UNDER_THEIR_OWN_NAMES},
}

# what is searched, and the photos that show it
SEARCHES: dict[str, tuple[str, ...]] = {
    "a cat": ("cat.png",),
    "an astronaut": ("astronaut.png",),
    "a cup of coffee": ("coffee.png",),
    "a rocket launch": ("rocket.jpg",),  # on its pad, at night; the astronaut only stands before a model of one
    "a motorcycle": ("motorcycle-left.png", "motorcycle-right.png"),  # one motorcycle, seen by two cameras side by side
    "a flower": ("flower.jpg",),
    "a temple": ("temple.jpg",),
    "coins": ("coins.png",),
    "the moon": ("moon.png",),  # its ground from near by
    "stars in the night sky": ("stars.jpg",),
    "a man with a camera": ("camera.png",),
    "a page of text": ("page.png", "handwriting.png"),  # a printed page, and a page written by hand
    "grass": ("grass.png",),
    "a brick wall": ("brick.png",),
    "a horse": ("horse.png",),  # a black silhouette
    "a clock": ("clock.png",),  # blurred by motion until little is left of it
}


@dataclass(frozen=True)
class Answer:
    """One search.

    Attributes:
        query: the words.
        first: file name of the first hit.
        score: its cosine.
        right: whether it shows what was asked for.
        right_rank: at which rank the first right picture stands; None where none is in the library.
    """

    query: str
    first: str
    score: float
    right: bool
    right_rank: int | None


@dataclass(frozen=True)
class DemoReport:
    """All searches. `pictures` were searched, `missing` photos are in none of the installed packages."""

    answers: tuple[Answer, ...]
    pictures: int
    missing: tuple[str, ...]
    index_seconds: float
    search_seconds: float

    @property
    def right(self) -> int:
        """How many first hits are right."""
        return sum(answer.right for answer in self.answers)

    def to_dict(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        answers = [{**vars(answer), "score": round(answer.score, 4)} for answer in self.answers]
        return {**vars(self), "answers": answers, "right": self.right}


def run_demo(
    folder: str | Path | None = None,
    *,
    model: str | Path | Encoder | None = None,
    progress: ProgressCallback | None = None,
) -> DemoReport:
    """Gather the photos, index them into a library of their own, and search.

    Args:
        folder: where photos and library are put, made anew each time; None is `.cache/demo` of the checkout, or the
            platform's folder for caches.
        model: a name, a path or a loaded model; None is the default model, whatever the user's configuration says.
        progress: told of each picture that is indexed.

    Raises:
        DataError: neither scikit-image nor scikit-learn is installed.
        ModelError: a model that cannot be loaded.
    """
    folder = _default_folder() if folder is None else Path(folder)
    photos, library = folder / "photos", folder / "library"
    for old in (photos, library):
        shutil.rmtree(old, ignore_errors=True)
    missing = gather(photos)
    with Library.open(library, model=model, config=Config()) as opened:
        started = time.monotonic()
        for root in (photos, SCENES) if SCENES.is_dir() else (photos,):
            opened.index(root, progress)
        indexed = time.monotonic()
        pictures = opened.status().images
        answers = tuple(_ask(opened, query, right, pictures) for query, right in SEARCHES.items())
        return DemoReport(answers, pictures, missing, indexed - started, time.monotonic() - indexed)


def gather(photos: Path) -> tuple[str, ...]:
    """Copy the photos of the installed packages into a folder; returns the names of those that are in none.

    Raises:
        DataError: there is not a single one.
    """
    photos.mkdir(parents=True, exist_ok=True)
    missing = []
    for name, ((package, inside), file) in PHOTOS.items():
        root = _package_folder(package)
        if root is not None and (root / inside / file).is_file():
            shutil.copyfile(root / inside / file, photos / name)
        else:
            missing.append(name)
    if len(missing) == len(PHOTOS):
        raise DataError("the demo's photos come with two packages; run 'pip install scikit-image scikit-learn'")
    return tuple(missing)


def _package_folder(package: str) -> Path | None:
    """Where a package lies, without importing it: its pictures are read as files."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _ask(library: Library, query: str, right: Sequence[str], pictures: int) -> Answer:
    hits = library.search(query, k=pictures, within="image")
    ranks = [hit.rank for hit in hits if hit.path.name in right]
    return Answer(query, hits[0].path.name, hits[0].score, hits[0].path.name in right, min(ranks, default=None))


def _default_folder() -> Path:
    if SCENES.is_dir():
        return CHECKOUT / ".cache" / "demo"
    from platformdirs import user_cache_path

    return user_cache_path("mmsearch") / "demo"


def show_demo(report: DemoReport, as_json: bool) -> None:
    """Print the demo's searches, and how many first hits are right."""
    if as_json:
        put_json(report.to_dict())
        return
    rows = [("search", "first hit", "", "score", "first right at")]
    for a in report.answers:
        verdict, rank = "right" if a.right else "wrong", "-" if a.right_rank is None else str(a.right_rank)
        rows.append((a.query, a.first, verdict, f"{a.score:.3f}", rank))
    put(f"{report.pictures} pictures indexed in {report.index_seconds:.1f} s")
    put()
    put_table(rows)
    put()
    put(f"{report.right} of {len(report.answers)} right")


def main(argv: Sequence[str] | None = None) -> int:
    """Run it and print a table, or JSON; 0 where it ran, 2 with one line where it could not."""
    from mmsearch.cli.progress import progress_on_stderr

    about = "Index real photos, search, judge."
    parser = argparse.ArgumentParser(prog="python -m mmsearch.cli.demo", description=about)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--model", help="a trained checkpoint in the default model's place")
    options = parser.parse_args(argv)
    try:
        with only_notes(), progress_on_stderr() as progress:
            report = run_demo(model=options.model or "default", progress=progress)
        if report.missing:
            note(f"not in the installed packages: {', '.join(report.missing)}; their searches cannot be right")
        show_demo(report, options.json)
        flush()
    except (MMSearchError, OSError) as error:  # OSError: no room, or a checkout that cannot be written to
        note(explain(error))
        return 2
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
