"""Visits to the doctor, and damage to the rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from indexer.doctor import DoctorReport, visit
from indexer.store import CATALOG_FILE
from tests.fakes import FakeEncoder


def see(library: Path, encoder: FakeEncoder | None = None, *, repair: bool = False, sample: int = 99) -> DoctorReport:
    model = encoder or FakeEncoder()
    return visit(library, lambda _: model, repair=repair, sample=sample)


def faults(report: DoctorReport) -> dict[str, int]:
    return {check.name: check.faults for check in report.checks if check.faults and not check.mended}


def sql(library: Path, *statements: str) -> None:
    with closing(sqlite3.connect(library / CATALOG_FILE)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement


MENDED: dict[str, tuple[str, ...]] = {
    "references": ("INSERT INTO captions (asset_id, live) VALUES (4711, 1)",),
    "counters": ("UPDATE library SET change = 3",),
    "doubles": (
        "INSERT INTO vectors (model_id, asset_id, role, kind, change, mu, logvar)"
        " SELECT model_id, asset_id, role, kind, change, mu, logvar FROM vectors WHERE id = 3",
    ),
    "visibility": ("UPDATE vectors SET kind = 2 WHERE kind = 1",),
    "files": ("UPDATE vectors SET mu = NULL, logvar = NULL WHERE id = 2", "DELETE FROM vectors WHERE id = 3"),
    "vectors": (
        "UPDATE vectors SET mu = substr(mu, 1, 31) WHERE id = 1",
        "UPDATE vectors SET logvar = zeroblob(0) WHERE id = 2",
        "UPDATE vectors SET logvar = NULL WHERE id = 3",
        "UPDATE vectors SET mu = CAST(x'007e' || substr(mu, 3) AS BLOB) WHERE id = 4",  # NaN
        "UPDATE vectors SET logvar = CAST(x'0044' || substr(logvar, 3) AS BLOB) WHERE id = 5",  # wider than the prior
        "UPDATE vectors SET mu = x'00' WHERE caption_id IS NOT NULL AND id % 2",
        "UPDATE vectors SET mu = x'00' WHERE role = 'fused' AND id % 2",
    ),
    "comparison": (
        "UPDATE vectors SET mu = CAST(x'0050' || substr(mu, 3) AS BLOB) WHERE kind != 0",
    ),
    "sample": ("UPDATE vectors SET mu = CAST(x'0050' || substr(mu, 3) AS BLOB) WHERE kind = 0 AND mu IS NOT NULL",),
}  # fmt: skip


def found_by(library: list[list[tuple[object, ...]]]) -> list[tuple[object, ...]]:
    """Files and scores: a bit in the words that are shown with them is the one thing that nothing here can know."""
    return sorted((hit[:3] for hit in library[-1]), key=repr)


def mend(library: Path, _photos: Path, encoder: FakeEncoder) -> None:
    visit(library, lambda _: encoder, repair=True, sample=0)
