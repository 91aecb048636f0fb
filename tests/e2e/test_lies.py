"""A lie in a single cell, in every column of every table, told to the commands: one line, and the doctor puts it right.

Each column is told one of the values, another one for each, and a few of the commands hear it, others each time.
`tests/indexer/catalog/test_cells.py` holds the rule of every column against every value; `tests/bench/fuzz.py` tells
all of them to all commands.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from tests.e2e.conftest import Answer, Run
from tests.lies import VALUES, Lie, lies, tell

TABLES = (
    "about", "alembic_version", "assets", "captions", "frames", "generations", "library", "models", "notices", "roots",
    "sqlite_sequence", "vectors",
)  # fmt: skip
AT_ONCE = 2  # commands that hear one lie
STEP = 7  # from one column's value to the next's; prime to the number of values
LONGEST_S = 10


@pytest.fixture
def library(tmp_path: Path, photos: Path, run: Run) -> Path:
    """A row in every table."""
    (photos / "captions.csv").write_text("image,caption\nred.png,a red wall\nnone.png,x\n")
    (photos / "bad.jpg").write_text("no picture")
    run("index", photos, "--library", tmp_path / "whole")
    with closing(sqlite3.connect(tmp_path / "whole" / "catalog.sqlite")) as connection, connection:
        connection.execute(
            "INSERT INTO frames (asset_id, model_id, time_ms, mu) SELECT asset_id, model_id, 0, mu FROM vectors LIMIT 1"
        )
    return tmp_path / "whole"


def test_every_table_hears_lies(library: Path) -> None:
    assert {lie.table for lie in lies(library / "catalog.sqlite")} == set(TABLES)
    assert len(VALUES) % STEP


@pytest.mark.parametrize("table", TABLES)
def test_a_lie_in_a_single_cell(tmp_path: Path, photos: Path, library: Path, run: Run, table: str) -> None:
    told = tmp_path / "told"
    commands = [
        ("status",), ("search", "red", "--json"), ("similar", photos / "blue.png", "--json"), ("errors",),
        ("prune", "--dry-run"), ("export", tmp_path / "archive"), ("backup", tmp_path / "copy"), ("doctor",),
        ("index", photos),
    ]  # fmt: skip
    for place, lie in enumerate(_chosen(library, table)):
        shutil.copytree(library, told)
        if tell(told / "catalog.sqlite", lie):
            for number in range(AT_ONCE):
                words = commands[(AT_ONCE * (place + len(table)) + number) % len(commands)]
                _is_honest(_timed(run, *words, "--library", told), f"{lie}, {words[0]}")
            if table != "alembic_version":  # which version wrote it is not for the doctor to say
                _is_honest(_timed(run, "doctor", "--repair", "--library", told), f"{lie}, repair")
                for words in (("index", photos), ("search", "red")):
                    answer = _timed(run, *words, "--library", told)
                    _is_honest(answer, f"{lie}, {words[0]} afterwards")
                    assert answer.code in (0, 3), f"{lie}, {words[0]} afterwards: {answer}"
        for folder in (told, tmp_path / "archive", tmp_path / "copy"):
            shutil.rmtree(folder, ignore_errors=True)


def test_one_wrong_row_does_not_take_the_library_from_its_owner(run: Run, photos: Path, library: Path) -> None:
    with closing(sqlite3.connect(library / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE assets SET taken_at = 'some day' WHERE rel_path = x'7265642e706e67'")  # red.png
    answer = run("search", "red", "--paths", "--library", library)
    assert answer.code == 0
    assert "red.png" not in answer.out
    assert len(answer.out.splitlines()) > 3
    assert "has taken_at = 'some day', not a time; run 'mmsearch doctor --repair'" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_vector_that_is_none_is_never_found(run: Run, photos: Path, library: Path) -> None:
    with closing(sqlite3.connect(library / "catalog.sqlite")) as connection, connection:
        change = connection.execute("UPDATE library SET change = change + 1 RETURNING change").fetchone()[0]
        connection.execute("UPDATE vectors SET mu = ?, change = ? WHERE id = 1", (b"\x00\x7e" * 16, change))
    for words in (("search", "red", "--json"), ("similar", photos / "blue.png", "--json")):
        answer = run(*words, "--library", library)
        assert answer.code == 0
        assert "NaN" not in answer.out
        assert "row 1 of vectors" in answer.err
    shutil.rmtree(library / "vectors")
    assert "row 1 of vectors" in run("search", "red", "--library", library).err


def _chosen(library: Path, table: str) -> Iterator[Lie]:
    """One lie for each column."""
    every = [lie for lie in lies(library / "catalog.sqlite") if lie.table == table]
    columns = list(dict.fromkeys(lie.column for lie in every))
    for place, column in enumerate(columns):
        of_column = [lie for lie in every if lie.column == column]
        yield next(islice(of_column, (STEP * (place + len(table))) % len(VALUES), None))


def _timed(run: Run, *words: str | Path) -> Answer:
    started = time.perf_counter()
    answer = run(*words)
    assert time.perf_counter() - started < LONGEST_S, words
    return answer


def _is_honest(answer: Answer, what: str) -> None:
    assert answer.code in (0, 1, 2, 3), f"{what}: {answer}"
    assert "unexpected" not in answer.err, f"{what}: {answer.err}"
    assert "Traceback" not in answer.err, f"{what}: {answer.err}"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", answer.out + answer.err), f"{what}: {answer}"
    if answer.code == 2:
        assert len(answer.err.splitlines()) == 1, f"{what}: {answer.err}"
