"""Whether a library is as it should be, every check as one line; and what can be mended of it without loss.

In: an open catalog, the library's folder, an encoder for the sample (or none). Out: `Check`s, and the ids of wrong
vectors as `Faults`, which `mend` takes. SQLite keeps no checksums, so vectors are compared with the index file, which
has one, and a sample of them with what the model makes of the files today. Next: `compare.py`; `catalog/checks.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from indexer.base.failpoints import reach
from indexer.base.types import Encoder
from indexer.catalog import checks as rows
from indexer.catalog import keyframes as moments
from indexer.catalog import visibility, wrong_rows
from indexer.catalog.database import Catalog, Connection, Model, live_model
from indexer.catalog.own_roots import left_out, standing
from indexer.maintenance import compare
from indexer.maintenance.compare import MEND, Check, Faults
from indexer.search import index_files as generations

DATABASE: Final = "database"
ROWS: Final = "rows"


def foundation(catalog: Catalog) -> list[Check]:
    """What has to be in order before anything else is asked: the file, and every cell of every row."""
    with catalog.begin() as connection:
        said = rows.database(connection)
        if said:  # what a damaged database answers further is not worth showing
            return [Check(DATABASE, len(said), f"SQLite says: {' '.join(said[0].split())}", MEND)]
        found = wrong_rows.find(connection)
        count = sum(map(len, found.values()))
        text = wrong_rows.summary(connection, found) if count else "every value fits its column"
        return [Check(DATABASE, 0, "SQLite finds every page and index in order"), Check(ROWS, count, text, MEND)]


def set_aside(catalog: Catalog, where: Path) -> str:
    """Take rows that hold what no row can out of the catalog, into a file; in words. The caller holds the lock."""
    with catalog.begin() as connection:
        path, count = wrong_rows.set_aside(connection, where)
    reach("repair.aside")
    return f"kept, with what named them, as {count} lines of {path.name}"


def examine(catalog: Catalog, where: Path, encoder: Encoder | None, sample: int, faults: Faults) -> list[Check]:
    """Every other check of the library in folder `where`, in one snapshot of the catalog. Nothing is written.

    Args:
        encoder: the live model, or None to leave out the sample.
        sample: how many files and captions are encoded again.
        faults: takes what was found, for `mend`.
    """
    with catalog.begin() as connection:
        model = live_model(connection)
        checks = [_references(connection), _counters(connection), _roots(connection)]
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
            *compare.with_index(connection, where / generations.VECTORS_FOLDER, model, faults),
            Check("keyframes", len(faults.videos), unfit, MEND),
            _leftovers(connection, where),
        ]
    if encoder is not None and sample > 0:
        looked_at, strange = compare.sample(catalog, model, encoder, sample)
        faults.doubtful.update(strange)
        found = f"{len(strange)} of {looked_at} files and captions are not what the model says of them now"
        checks.append(Check("sample", len(strange), found, MEND))
    return checks


def mend(catalog: Catalog, where: Path, faults: Faults) -> list[Path]:
    """Mend the library in folder `where`; the folders whose files have to be encoded again afterwards.

    A wrong vector is forgotten where its file is at hand or its words are on record, and stays where they are not.
    One transaction: a crash leaves the library as it was, or mended. The caller holds the writer's lock.
    """
    with catalog.begin() as connection:
        rows.mend_counters(connection)
        rows.mend_references(connection, where)
        model = live_model(connection)
        due: list[Path] = []
        if model is not None:
            now = standing(connection)
            wrong = faults.unusable | rows.replaceable(connection, now.whole, faults.doubtful | faults.videos)
            settled = wrong | rows.drop_doubles(connection, model)
            roots = rows.forget(connection, model, wrong)
            due = [root.path / part for root in now.online if root.id in roots for part in now.own.parts(root)]
            visibility.refresh(connection)
        reach("repair.mending")
    reach("repair.mended")
    if model is not None and faults.doubtful <= settled:
        generations.remake(catalog, where / generations.VECTORS_FOLDER, model)
        reach("repair.remade")
    return due


def _references(connection: Connection) -> Check:
    found = rows.dangling(connection)
    lines = [f"{count} rows of {table} whose {column} leads nowhere" for table, column, count in found]
    text = "; ".join(lines) or "every row leads where it should"
    return Check("references", sum(count for _, _, count in found), text, MEND)


def _counters(connection: Connection) -> Check:
    found = rows.counters(connection)
    if len(found) != 1:
        return Check("counters", 1, f"{len(found)} rows where the library has one", MEND)
    (change, generation), (newest_change, newest_generation) = found[0], rows.newest(connection)
    late = int(change < newest_change) + int(generation < newest_generation)
    text = f"change {change}, generation {generation}"
    wanted = f"; rows are at change {newest_change}, generation {newest_generation}" if late else ""
    return Check("counters", late, text + wanted, MEND)


def _roots(connection: Connection) -> Check:
    now = standing(connection)
    away = [f"{root.path} {reason}" for root, reason in now.offline.items()]
    count = len(now.online) + len(now.offline) + len(now.strange)
    found = f"{count} folders" + (f", offline: {'; '.join(away)}" if away else "" if now.strange else ", all there")
    strange = left_out(now.strange)
    # neither is a fault: the files wait in the catalog
    return Check("folders", 0, "; ".join(part for part in (found, strange) if part))


def _other_models(connection: Connection, model: Model) -> Check:
    others = rows.other_models(connection, model)
    wait = [f"; {count} of '{name}', which wait for 'mmsearch rebuild --model {name}'" for name, count in others]
    return Check("model", 0, f"vectors of '{model.name}' ({model.fingerprint[:12]})" + "".join(wait))


def _leftovers(connection: Connection, where: Path) -> Check:
    found = generations.leftovers(connection, where / generations.VECTORS_FOLDER)
    folders = (where, where / generations.VECTORS_FOLDER)
    aside = sorted(path.name for folder in folders for path in folder.glob("*.bad-*"))
    kept = f"; kept aside as damaged: {', '.join(aside)}" if aside else ""
    names = ", ".join(path.name for path in found)
    return Check("leftovers", len(found), (f"not in use: {names}" if names else "none") + kept, MEND)
