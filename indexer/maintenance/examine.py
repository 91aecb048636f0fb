"""Whether a library is as it should be: every check of its state, each as one line, and nothing is written.

In: an open catalog, the library's folder, an encoder for the sample (or none). Out: `Check`s, and in `Faults` the ids
that `repair.py` needs. SQLite keeps no checksums, so vectors are compared with the index file, which has one, and a
sample of them with what the model makes of the files today. Next: `compare.py`, then `repair.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexer.base.types import Encoder
from indexer.catalog import checks as rows
from indexer.catalog import keyframes as moments
from indexer.catalog import visibility
from indexer.catalog.database import Catalog, Connection, Model, live_model
from indexer.catalog.roots import all_roots, offline_reason
from indexer.maintenance import compare
from indexer.maintenance.compare import Faults
from indexer.search import index_files as generations

MEND: Final = "mmsearch doctor --repair"


@dataclass(frozen=True)
class Check:
    """One thing looked at. `faults` counts what is wrong, `found` says it in words, `remedy` is what to type."""

    name: str
    faults: int
    found: str
    remedy: str = ""
    mended: bool = False


def examine(
    catalog: Catalog, where: Path, encoder: Encoder | None, sample: int, faults: Faults | None = None
) -> list[Check]:
    """Every check of the library in folder `where`, in one snapshot of the catalog.

    Args:
        encoder: the live model, or None to leave out the sample.
        sample: how many files and captions are encoded again.
        faults: takes what was found, for `repair.py`.
    """
    faults = Faults() if faults is None else faults
    with catalog.begin() as connection:
        checks = [_database(connection)]
        if checks[0].faults:
            return checks  # what a damaged database answers further is not worth showing
        model = live_model(connection)
        checks += [_references(connection), _counters(connection), _roots(connection)]
        if model is None:
            return checks
        doubles = len(rows.doubles(connection, model))
        unencoded = rows.count_unencoded(connection, model)
        stale = visibility.stale(connection, model)
        videos, faults.videos = moments.unfit(connection, model)
        unfit = f"{len(faults.videos)} of {videos} videos have keyframes that do not make up their vector"
        checks += [
            _other_models(connection, model),
            Check("doubles", doubles, f"{doubles} vectors twice" if doubles else "no vector is there twice", MEND),
            Check("files", unencoded, f"{unencoded or 'no'} files wait to be encoded", "mmsearch index FOLDER"),
            Check("visibility", stale, f"{stale or 'no'} vectors are found, or hidden, where they should not be", MEND),
            *_vectors(connection, where, model, faults),
            Check("keyframes", len(faults.videos), unfit, MEND),
            _leftovers(connection, where),
        ]
    if encoder is not None and sample > 0:
        looked_at, strange = compare.sample(catalog, model, encoder, sample)
        faults.doubtful.update(strange)
        found = f"{len(strange)} of {looked_at} files and captions are not what the model says of them now"
        checks.append(Check("sample", len(strange), found, MEND))
    return checks


def _database(connection: Connection) -> Check:
    said = rows.database(connection)
    if said:
        return Check("database", len(said), f"SQLite says: {' '.join(said[0].split())}", MEND)
    return Check("database", 0, "SQLite finds every page and index in order")


def _references(connection: Connection) -> Check:
    found = rows.dangling(connection)
    lines = [f"{one.rows} rows of {one.table} whose {one.column} leads nowhere" for one in found]
    text = "; ".join(lines) or "every row leads where it should"
    return Check("references", sum(one.rows for one in found), text, MEND)


def _counters(connection: Connection) -> Check:
    found = rows.counters(connection)
    if len(found) != 1:
        return Check("counters", 1, f"{len(found)} rows where the library has one", MEND)
    held, newest = found[0], rows.newest(connection)
    late = int(held.change < newest.change) + int(held.generation < newest.generation)
    text = f"change {held.change}, generation {held.generation}"
    wanted = f"; rows are at change {newest.change}, generation {newest.generation}" if late else ""
    return Check("counters", late, text + wanted, MEND)


def _roots(connection: Connection) -> Check:
    everything = all_roots(connection)
    reasons = [(root.path, offline_reason(connection, root)) for root in everything]
    away = [f"{path} {reason}" for path, reason in reasons if reason]
    found = f"{len(everything)} folders" + (f", offline: {'; '.join(away)}" if away else ", all there")
    return Check("folders", 0, found)  # offline is no fault: the files wait in the catalog


def _other_models(connection: Connection, model: Model) -> Check:
    others = rows.other_models(connection, model)
    wait = [f"; {count} of '{name}', which wait for 'mmsearch rebuild --model {name}'" for name, count in others]
    return Check("model", 0, f"vectors of '{model.name}' ({model.fingerprint[:12]})" + "".join(wait))


def _vectors(connection: Connection, where: Path, model: Model, faults: Faults) -> list[Check]:
    seen = compare.with_index(connection, where / generations.VECTORS_FOLDER, model, faults)
    unusable, differing = len(faults.unusable), len(faults.doubtful)
    blobs = f"{unusable} of {seen.vectors}" if unusable else f"{seen.vectors}"
    return [
        Check("vectors", unusable, f"{blobs} vectors {'cannot' if unusable else 'can'} be used", MEND),
        Check("index file", int(faults.index), seen.index, MEND),
        Check("comparison", differing, f"{differing} of {seen.compared} vectors differ from the index file", MEND),
    ]


def _leftovers(connection: Connection, where: Path) -> Check:
    found = generations.leftovers(connection, where / generations.VECTORS_FOLDER)
    folders = (where, where / generations.VECTORS_FOLDER)
    aside = sorted(path.name for folder in folders for path in folder.glob("*.bad-*"))
    kept = f"; kept aside as damaged: {', '.join(aside)}" if aside else ""
    names = ", ".join(path.name for path in found)
    return Check("leftovers", len(found), (f"not in use: {names}" if names else "none") + kept, MEND)
