"""What the command line shows: hits, reports, status and errors as a table, as paths or as JSON.

In: the values of `Library`. Out: what `terminal.py` prints: data on stdout, warnings on stderr.
Next: `render_eval.py`, the same for what was measured; `progress.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.cli.terminal import Format, as_cell, count, note, put, put_json, put_paths, put_table

if TYPE_CHECKING:  # `--help` and an error message need none of these, nor numpy, which they bring
    from indexer.base.types import IndexReport
    from indexer.doctor import DoctorReport
    from indexer.maintenance.prune import PruneReport
    from indexer.store import SkippedFile, Status
    from mmsearch.query.hits import Hit

SNIPPET_CHARS = 60


def show_hits(hits: Sequence[Hit], query: Mapping[str, str | None], style: Format) -> None:
    """Print hits. `query` is what was asked, and opens the JSON: `{"query": "a cat"}`."""
    if style is Format.JSON:
        put_json({**query, "hits": [_hit_dict(hit) for hit in hits]})
    elif style is Format.TABLE:
        put_table([(str(hit.rank), f"{hit.score:.3f}", hit.modality, _short(hit.path), _snippet(hit)) for hit in hits])
    else:
        put_paths((hit.path for hit in hits), style)


def show_answers(texts: Sequence[str], answers: Sequence[Sequence[Hit]], style: Format) -> None:
    """Print the hits of many queries: JSON one query a line, tables under their query, paths one after the other."""
    for text, hits in zip(texts, answers, strict=True):
        if style is Format.JSON:
            put_json({"query": text, "hits": [_hit_dict(hit) for hit in hits]}, indent=None)
        else:
            if style is Format.TABLE:
                put(text)
            show_hits(hits, {"query": text}, style)
            if style is Format.TABLE:
                put()


def show_report(report: IndexReport, as_json: bool, *, profile: bool = False) -> None:
    """Print what an `index` run did; a second line on stderr says where the skipped files are listed."""
    if as_json:
        put_json(report.to_dict(profile=profile))
    else:
        counts = ", ".join(f"{getattr(report, name)} {name}" for name in ("added", "updated", "moved", "unchanged"))
        rate = f", {report.encoded / report.seconds:.1f} encoded/s" if report.encoded and report.seconds > 0 else ""
        hidden = f", {report.offline} offline" if report.offline else ""
        hidden += f", {report.excluded} newly excluded" if report.excluded else ""
        put(f"{counts}{hidden} in {report.seconds:.1f} s{rate}")
    if report.skipped:
        note(f"{count(report.skipped, 'file')} skipped; 'mmsearch errors' lists them with the reasons")
    if report.postponed:
        note(f"{report.postponed} of them could not be read now; the next 'mmsearch index' tries again")


def show_errors(errors: Sequence[SkippedFile], style: Format) -> None:
    """Print the skipped files with their reasons."""
    if style is Format.JSON:
        put_json([asdict(error) for error in errors])
    elif style is Format.TABLE:
        put_table([(_short(Path(error.path)), as_cell(error.reason)) for error in errors])
    else:
        put_paths((Path(error.path) for error in errors), style)


def show_status(library: Path, status: Status, as_json: bool) -> None:
    """Print what a library holds, where, and which model wrote it."""
    facts = {"library": str(library), **asdict(status)}
    roots = facts.pop("roots")
    if as_json:
        put_json({**facts, "roots": roots})
        return
    facts["size"] = f"{facts.pop('size_bytes') / 1e6:.1f} MB"
    facts["model"] = f"{facts.pop('model_name') or '-'} ({(facts.pop('model_fingerprint') or '-')[:12]})"
    facts["last_indexed"] = f"{status.last_indexed_at:%Y-%m-%d %H:%M} UTC" if facts.pop("last_indexed_at") else None
    show_facts(facts, as_json=False)
    for root in status.roots:
        state = "online" if root.online else f"offline: {root.reason}"
        state = state if root.yours else "not yours yet: searched, not read before 'mmsearch index' of it"
        put(f"{root.path}  {count(root.files, 'file')}, {state}")


def show_pruned(report: PruneReport, as_json: bool) -> None:
    """Print the files that `prune` forgot or would forget; on stderr how many those are, and what stays and why."""
    if as_json:
        put_json(report.to_dict())
        return
    for path in report.paths:
        put(str(path))
    note(f"{count(report.removed, 'file')} {'would be forgotten' if report.dry_run else 'forgotten'}")
    if report.held_back:
        note(
            f"{count(report.held_back, 'file')} held back: their folder is empty or unreadable; name it to forget them"
        )
    if report.present:
        note(f"{count(report.present, 'hidden file')} on disk: index again, or add --excluded to forget them")
    if report.not_yours:
        note(f"{count(report.not_yours, 'file')} of folders you never indexed on this machine stay, not looked for")
    if report.offline:
        note(f"{count(report.offline, 'file')} of offline folders stay; '--offline FOLDER' forgets a folder")


def show_checks(report: DoctorReport, as_json: bool) -> None:
    """Print what a doctor found, a line a check; on stderr what to type about faults that are left."""
    if as_json:
        put_json(report.to_dict())
    else:
        states = {
            check.name: "mended" if check.mended else "FAULT" if check.faults else "ok" for check in report.checks
        }
        put_table([(states[check.name], check.name, check.found) for check in report.checks])
    left = [check for check in report.checks if check.faults and not check.mended]
    remedies = dict.fromkeys(
        check.remedy for check in report.checks if check.remedy and (check in left or check.mended)
    )
    if left or remedies:
        run = f"; run {' and '.join(repr(remedy) for remedy in remedies)}" if remedies else ""
        note(f"{count(sum(check.faults for check in left), 'fault')} left{run}")


def show_path(path: Path) -> None:
    """Print one path."""
    put_paths([path], Format.PATHS)


def show_facts(facts: Mapping[str, object], as_json: bool = False) -> None:
    """Print named values, nested ones indented: a library's status, the figures of an evaluation."""
    if as_json:
        put_json(facts)
    else:
        put_table(list(_fact_rows(facts, "")))


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
            yield label, as_cell(value)


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
