"""Learning curves: one CSV row an epoch, and a picture of them.

In: rows of numbers from `loop.py`. Out: `curves.csv`, written whole after each epoch, and `curves.png`. A run that goes
on from a checkpoint drops the rows written after it: those epochs run again. Next: `export/export.py`, when the last
epoch is done.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsearch.errors import TrainingError

log = logging.getLogger(__name__)

Row = dict[str, float]
_NOT_A_TERM = {"epoch", "step", "mean_recall"}
_TERM_NAMES = {"loss": "loss (total)", "elbo": "negative ELBO", "kl": "KL to the prior", "contrast": "InfoNCE"}
_WAYS = {"t2i": ("text to image", "#1f77b4"), "i2t": ("image to text", "#d95f02")}
_DASHES = {"r1": "-", "r5": "--", "r10": ":"}


class LearningCurves:
    """A CSV with a row an epoch; `epoch` and `step` are among its columns.

    Args:
        path: the CSV; kept if it is there.
        resume_step: rows of later steps are dropped, as is a last line that a crash left incomplete.

    Raises:
        TrainingError: where the file cannot be read as curves.
    """

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        self.path = path
        self.rows: list[Row] = [row for row in _read(path) if row.get("step", math.inf) <= resume_step]
        if path.exists():
            self._write()

    def append(self, row: Mapping[str, float]) -> None:
        """Add one epoch. A column that the file does not have yet is empty in the rows before."""
        self.rows.append({name: float(value) for name, value in row.items()})
        self._write()

    def _write(self) -> None:
        write_csv(self.path, [{name: _cell(value) for name, value in row.items()} for row in self.rows])

    def plot(self, path: Path) -> None:
        """Draw terms of the objective and validation recall over the epochs; without matplotlib only a warning."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            log.warning("%s was not drawn: matplotlib is missing; pip install 'mmsearch[train]'", path)
            return
        if not self.rows:
            return
        figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
        terms, recalls = figure.subplots(1, 2)
        epochs = [row["epoch"] + 1 for row in self.rows]
        _draw_terms(terms, epochs, self.rows)
        _draw_recalls(recalls, epochs, self.rows)
        for axes in (terms, recalls):
            axes.set_xlabel("epochs done")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(color="0.9")
            axes.spines[["top", "right"]].set_visible(False)
            if axes.lines:
                axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.savefig(path)


def _draw_terms(axes: Any, epochs: Sequence[float], rows: Sequence[Row]) -> None:
    axes.set_title("Objective, training", loc="left", fontsize=10)
    axes.set_ylabel("nats an item (symmetric log scale)")
    # InfoNCE lies near 1 and the ELBO near -1,000: on a linear axis all but one of them are flat lines at zero
    axes.set_yscale("symlog", linthresh=1.0)
    for name in rows[-1]:
        if name in _NOT_A_TERM or name.endswith("_per_s") or name.split("_")[0] in _WAYS:
            continue
        sign = -1 if name == "elbo" else 1
        values = [sign * row.get(name, math.nan) for row in rows]
        axes.plot(epochs, values, marker=".", linewidth=1.5, label=_TERM_NAMES.get(name, name))


def _draw_recalls(axes: Any, epochs: Sequence[float], rows: Sequence[Row]) -> None:
    axes.set_title("Recall, validation", loc="left", fontsize=10)
    axes.set_ylabel("queries with a right item in the first k, %")
    for way, (words, colour) in _WAYS.items():
        for k, dashes in _DASHES.items():
            values = [row.get(f"{way}_{k}", math.nan) for row in rows]
            if not all(map(math.isnan, values)):
                label = f"{words} R@{k[1:]}"
                axes.plot(epochs, values, dashes, marker=".", color=colour, linewidth=1.5, label=label)
    means = [row.get("mean_recall", math.nan) for row in rows]
    if not all(map(math.isnan, means)):
        best = max((value, -epoch) for value, epoch in zip(means, epochs, strict=True) if not math.isnan(value))
        axes.axvline(-best[1], color="0.5", linewidth=1, label=f"best mean recall, {best[0]:.1f} %")
    axes.set_ylim(bottom=0)


def _read(path: Path) -> list[Row]:
    """The rows of a file; of a missing one none. A last line that was cut off is left out."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    table = csv.DictReader(whole.splitlines())
    if whole and not {"epoch", "step"} <= set(table.fieldnames or ()):
        raise TrainingError(f"{path} is not a file of learning curves: no columns epoch and step; move it away")
    rows: list[Row] = []
    for number, line in enumerate(table, start=2):
        try:
            rows.append({name: float(cell) for name, cell in line.items() if cell != ""})
        except (TypeError, ValueError) as error:  # a word; a cell too few or too many
            what = "is not a row of numbers; repair the line or move the file away"
            raise TrainingError(f"{path}:{number} {what}") from error
    return rows


def _cell(value: float) -> str:
    """A number as text; a whole one without a fraction, so that epochs read as epochs."""
    return "" if math.isnan(value) else str(int(value)) if value.is_integer() else f"{value:.6g}"


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Rows under the columns of all of them; a cell is empty where a row has none or None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    replace_text(path, text.getvalue())


def replace_text(path: Path, text: str) -> None:
    """Write a file, in place at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)
