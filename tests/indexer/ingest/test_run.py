"""What a run counts, and that a report is those counts."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from indexer.base.profile import Profiler
from indexer.base.types import IndexReport, Progress
from indexer.catalog.database import Catalog
from indexer.catalog.library import claim
from indexer.ingest.run import Run, Tally
from tests.fakes import FakeEncoder


def test_the_report_has_every_count() -> None:
    counts = {field.name: number for number, field in enumerate(fields(Tally), start=1)}
    profile = Profiler().profile()
    report = Tally(**counts).report(profile)
    assert report == IndexReport(**counts, seconds=profile.seconds, profile=profile)


def test_the_index_file_is_written_and_timed(tmp_path: Path) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.sqlite", migrate_schema=True)
    encoder, clock = FakeEncoder(), Profiler()
    with catalog.begin() as connection:
        model = claim(connection, encoder, tmp_path)

    def progress(_: Progress) -> None:
        return None

    Run(catalog, tmp_path, model, encoder, 4, progress, clock).write_index()
    (stage,) = (one for one in clock.profile().stages if one.name == "index_file")
    assert stage.items == 0
    assert stage.seconds > 0
    catalog.close()
