"""What the command line shows: hits, reports, status and errors as a table, as paths or as JSON.

In: the values of `Library`. Out: bytes on stdout (data) and lines on stderr (warnings). With `cli.py` and `progress.py`
the only code that prints. File names are bytes: `--paths` and `--print0` give exactly those, tables escape what
would break a line. Next: `progress.py`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `--help` and an error message need none of these, nor numpy, which they bring
    from indexer.doctor import DoctorReport
    from indexer.prune import PruneReport
    from indexer.store import SkippedFile, Status
    from indexer.types import IndexReport
    from mmsearch.demo import DemoReport
    from mmsearch.query.hits import Hit
    from mmsearch.training.evaluate import EvalReport
    from mmsearch.training.fusion_eval import FusionReport
    from mmsearch.training.phrasing import PhrasingReport
    from mmsearch.training.uncertainty import UncertaintyReport

SNIPPET_CHARS = 60


class Format(StrEnum):
    """How hits and skipped files are shown."""

    TABLE = "table"
    PATHS = "paths"
    PRINT0 = "print0"
    JSON = "json"


def show_hits(hits: Sequence[Hit], query: Mapping[str, str | None], style: Format) -> None:
    """Print hits. `query` is what was asked, and opens the JSON: `{"query": "a cat"}`."""
    if style is Format.JSON:
        _put_json({**query, "hits": [_hit_dict(hit) for hit in hits]})
    elif style is Format.TABLE:
        _put_table([(str(hit.rank), f"{hit.score:.3f}", hit.modality, _short(hit.path), _snippet(hit)) for hit in hits])
    else:
        _put_paths((hit.path for hit in hits), style)


def show_answers(texts: Sequence[str], answers: Sequence[Sequence[Hit]], style: Format) -> None:
    """Print the hits of many queries: JSON one query a line, tables under their query, paths one after the other."""
    for text, hits in zip(texts, answers, strict=True):
        if style is Format.JSON:
            _put(json.dumps({"query": text, "hits": [_hit_dict(hit) for hit in hits]}) + "\n")
        else:
            if style is Format.TABLE:
                _put(_visible(text) + "\n")
            show_hits(hits, {"query": text}, style)
            if style is Format.TABLE:
                _put("\n")


def show_report(report: IndexReport, as_json: bool, *, profile: bool = False) -> None:
    """Print what an `index` run did; a second line on stderr says where the skipped files are listed."""
    if as_json:
        _put_json(report.to_dict(profile=profile))
    else:
        counts = ", ".join(f"{getattr(report, name)} {name}" for name in ("added", "updated", "moved", "unchanged"))
        rate = f", {report.encoded / report.seconds:.1f} encoded/s" if report.encoded and report.seconds > 0 else ""
        hidden = f", {report.offline} offline" if report.offline else ""
        hidden += f", {report.excluded} newly excluded" if report.excluded else ""
        _put(f"{counts}{hidden} in {report.seconds:.1f} s{rate}\n")
    if report.skipped:
        note(f"{count(report.skipped, 'file')} skipped; 'mmsearch errors' lists them with the reasons")


def show_errors(errors: Sequence[SkippedFile], style: Format) -> None:
    """Print the skipped files with their reasons."""
    if style is Format.JSON:
        _put_json([asdict(error) for error in errors])
    elif style is Format.TABLE:
        _put_table([(_short(Path(error.path)), error.reason) for error in errors])
    else:
        _put_paths((Path(error.path) for error in errors), style)


def show_status(library: Path, status: Status, as_json: bool) -> None:
    """Print what a library holds, where, and which model wrote it."""
    facts = {"library": str(library), **asdict(status)}
    roots = facts.pop("roots")
    if as_json:
        _put_json({**facts, "roots": roots})
        return
    facts["size"] = f"{facts.pop('size_bytes') / 1e6:.1f} MB"
    facts["model"] = f"{facts.pop('model_name') or '-'} ({(facts.pop('model_fingerprint') or '-')[:12]})"
    facts["last_indexed"] = f"{status.last_indexed_at:%Y-%m-%d %H:%M} UTC" if facts.pop("last_indexed_at") else None
    show_facts(facts, as_json=False)
    for root in status.roots:
        state = "online" if root.online else f"offline: {root.reason}"
        _put(f"{_visible(str(root.path))}  {count(root.files, 'file')}, {state}\n")


def show_pruned(report: PruneReport, as_json: bool) -> None:
    """Print the files that `prune` forgot or would forget; on stderr how many those are, and what stays and why."""
    if as_json:
        _put_json(report.to_dict())
        return
    _put_paths(report.paths, Format.PATHS)
    note(f"{count(report.removed, 'file')} {'would be forgotten' if report.dry_run else 'forgotten'}")
    if report.held_back:
        note(
            f"{count(report.held_back, 'file')} held back: their folder is empty or unreadable; name it to forget them"
        )
    if report.present:
        note(f"{count(report.present, 'hidden file')} on disk: index again, or add --excluded to forget them")
    if report.offline:
        note(f"{count(report.offline, 'file')} of offline folders stay; '--offline FOLDER' forgets a folder")


def show_checks(report: DoctorReport, as_json: bool) -> None:
    """Print what a doctor found, a line a check; on stderr what to type about faults that are left."""
    if as_json:
        _put_json(report.to_dict())
    else:
        states = {
            check.name: "mended" if check.mended else "FAULT" if check.faults else "ok" for check in report.checks
        }
        _put_table([(states[check.name], check.name, check.found) for check in report.checks])
    left = [check for check in report.checks if check.faults and not check.mended]
    remedies = dict.fromkeys(
        check.remedy for check in report.checks if check.remedy and (check in left or check.mended)
    )
    if left or remedies:
        run = f"; run {' and '.join(repr(remedy) for remedy in remedies)}" if remedies else ""
        note(f"{count(sum(check.faults for check in left), 'fault')} left{run}")


def show_path(path: Path) -> None:
    """Print one path."""
    _put_paths([path], Format.PATHS)


def show_facts(facts: Mapping[str, object], as_json: bool) -> None:
    """Print named values, nested ones indented: a library's status, the figures of an evaluation."""
    if as_json:
        _put_json(facts)
    else:
        _put_table(list(_fact_rows(facts, "")))


def show_eval(report: EvalReport, as_json: bool) -> None:
    """Print what an evaluation found: recall both ways, how the latent space is used, bounds on the likelihood."""
    facts = report.to_dict()
    if as_json:
        _put_json(facts)
        return
    _put_matrix({name: facts.pop(name) for name in ("text_to_image", "image_to_text")})
    backbone = facts.pop("backbone")
    matrices = [{f"backbone alone, {name}": row for name, row in backbone.items()}]
    matrices += [facts.pop(name) for name in ("latent", "bounds")]
    for matrix in matrices:
        if matrix:
            _put("\n")
            _put_matrix(matrix)
    _put("\n")
    show_facts(facts, as_json=False)


def show_phrasing(report: PhrasingReport, as_json: bool) -> None:
    """Print the recall of each wording, what it loses in percent of the plain recall, and which lose over a fifth."""
    facts = report.to_dict()
    if as_json:
        _put_json(facts)
        return
    shown = [("text_to_image", "r1", "to image R@1"), ("text_to_image", "r10", "R@10")]
    shown += [("image_to_text", "r1", "to text R@1"), ("image_to_text", "r10", "R@10")]
    rows = [("", "changed", *(title for *_, name in shown for title in (name, "loss")), "")]
    variants = facts.pop("variants")
    for name, found in variants.items():
        cells = [_cell(cell) for way, k, _ in shown for cell in (found[way][k], found["loss"][f"{way}_{k}"])]
        mark = "over a fifth lost" if found["over_a_fifth"] else ""
        rows.append((name.replace("_", " "), _cell(found["changed"]), *cells, mark))
    _put_table(rows)
    _put("\n")
    _put_table([(name.replace("_", " "), found["example"]) for name, found in variants.items()])
    _put("\n")
    show_facts(facts, as_json=False)


def show_fusion(report: FusionReport, as_json: bool) -> None:
    """Print the recall of each way of fusing, by the number of captions fused in, and whether the product won."""
    facts = report.to_dict()
    if as_json:
        _put_json(facts)
        return
    titles = ["captions", "R@1", "R@5", "R@10", "over average", "95 %", "by itself"]
    rows = [("", *titles, "half with: R@1", "R@10", "half without: R@1", "R@10")]
    for captions, ways in facts.pop("fusions").items():
        for name, found in ways.items():
            gain = found["gain"] or {}
            cells = [_cell(found["recall"][k]) for k in ("r1", "r5", "r10")]
            cells += [_cell(gain.get("r1")), _interval(gain), _cell(found["itself"])]
            cells += [
                _cell((found[half] or {}).get(k)) for half in ("half_with", "half_without") for k in ("r1", "r10")
            ]
            rows.append((name.replace("_", " "), captions, *cells))
    _put_table(rows)
    _put("\n")
    show_facts(facts, as_json=False)


def show_uncertainty(report: UncertaintyReport, as_json: bool) -> None:
    """Print the spread of posteriors as things are taken away, and how well signals tell wrong first hits."""
    facts = report.to_dict()
    if as_json:
        _put_json(facts)
        return
    for what, title in (("words", "captions, first words"), ("blur", "photos, blur radius in pixels")):
        grown = facts.pop(what)
        _put(f"{title} ({grown['items']})\n")
        _put_matrix(grown.pop("levels"))
        correlations = f"rank correlation {grown['spearman']}, within an item {grown['spearman_items']}"
        _put(f"{correlations}, rises in {grown['rises']} % of them\n\n")
    _put_matrix(facts.pop("altered"))
    rows = [("wrong first hits", "AUROC", "95 %")]
    for prefix, areas in (("", facts.pop("errors")), ("variance adds ", facts.pop("variance_adds"))):
        for name, area in areas.items():
            shown = area or {}
            rows.append((prefix + name.replace("_", " "), _cell(shown.get("value")), _interval(shown)))
    _put("\n")
    _put_table(rows)
    _put("\n")
    show_facts(facts, as_json=False)


def show_demo(report: DemoReport, as_json: bool) -> None:
    """Print the demo's searches, and how many first hits are right."""
    if as_json:
        _put_json(report.to_dict())
        return
    rows = [("search", "first hit", "", "score", "first right at")]
    for a in report.answers:
        verdict, rank = "right" if a.right else "wrong", "-" if a.right_rank is None else str(a.right_rank)
        rows.append((a.query, a.first, verdict, f"{a.score:.3f}", rank))
    _put(f"{report.pictures} pictures indexed in {report.index_seconds:.1f} s\n\n")
    _put_table(rows)
    _put(f"\n{report.right} of {len(report.answers)} right\n")


def note(message: str) -> None:
    """One line for a person, on stderr."""
    line = " ".join(message.split())
    sys.stderr.write(f"mmsearch: {line}\n".encode("utf-8", "backslashreplace").decode("utf-8"))
    sys.stderr.flush()


class NoteHandler(logging.Handler):
    """Log records as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        note(record.getMessage())


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _hit_dict(hit: Hit) -> dict[str, object]:
    values: dict[str, object] = {
        "rank": hit.rank,
        "path": str(hit.path),
        "score": round(hit.score, 6),
        "modality": hit.modality,
    }
    for name in ("text", "taken_at", "camera", "latitude_deg", "longitude_deg", "time_s"):
        if getattr(hit, name) is not None:
            values[name] = getattr(hit, name)
    return values


def _fact_rows(facts: Mapping[str, object], indent: str) -> Iterable[tuple[str, str]]:
    for name, value in facts.items():
        label = indent + name.replace("_", " ")
        if isinstance(value, Mapping):
            yield label, ""
            yield from _fact_rows(value, indent + "  ")
        elif isinstance(value, (list, tuple)):
            yield label, ", ".join(str(item) for item in value)
        else:
            yield label, _cell(value)


def _short(path: Path) -> str:
    """Relative to the current folder where that is shorter to read; always something a shell finds."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the current folder is gone
        return str(path)


def _snippet(hit: Hit) -> str:
    if hit.time_s is not None:
        return f"at {int(hit.time_s // 60)}:{int(hit.time_s % 60):02d}"
    text = " ".join((hit.text or "").split())
    return text if len(text) <= SNIPPET_CHARS else text[: SNIPPET_CHARS - 1] + "…"


def _put_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell, numbers to the right, control characters escaped: one row is one line."""
    cells = [[_visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    body = cells[1:] or cells  # the first row may be titles
    right = [all(_is_number(row[column]) for row in body) for column in range(len(widths))]
    for row in cells:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        _put("  ".join(parts).rstrip() + "\n")


def _put_matrix(rows: Mapping[str, Mapping[str, object]]) -> None:
    """Named rows of the same named values, under a line of the names; `r10` is shown as `R@10`."""
    columns = list(next(iter(rows.values())))
    titles = [re.sub(r"^r(\d+)$", r"R@\1", column).replace("_", " ") for column in columns]
    body = [(name.replace("_", " "), *(_cell(row.get(column)) for column in columns)) for name, row in rows.items()]
    _put_table([("", *titles), *body])


def _interval(bounds: Mapping[str, object]) -> str:
    return f"{_cell(bounds['low'])} to {_cell(bounds['high'])}" if bounds else "-"


def _cell(value: object) -> str:
    return str(round(value, 4)) if isinstance(value, float) else "-" if value is None else str(value)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).replace("-", "", 1).isdigit()


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in text)


def _put_paths(paths: Iterable[Path], style: Format) -> None:
    end = b"\0" if style is Format.PRINT0 else b"\n"
    for path in paths:
        _put_bytes(os.fsencode(path) + end)


def _put_json(value: object) -> None:
    # ASCII: a name that is not UTF-8 becomes \udcXX, which JSON readers take and Python turns back into the same bytes
    _put(json.dumps(value, indent=2, default=_plain) + "\n")


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _put(text: str) -> None:
    try:
        _put_bytes(os.fsencode(text))
    except UnicodeEncodeError:  # a terminal that is not UTF-8
        _put_bytes(text.encode(sys.getfilesystemencoding(), "backslashreplace"))


def _put_bytes(data: bytes) -> None:
    sys.stdout.buffer.write(data)
