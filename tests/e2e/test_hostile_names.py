"""Names, texts and arguments full of control characters: every command shows them, and the terminal acts on none."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from mmsearch.cli import app as cli
from tests.e2e.conftest import Run
from tests.e2e.runner import load_fake
from tests.fakes import paint
from tests.mmsearch.cli.test_terminal import control_bytes

NASTY = os.fsdecode(
    b"\x1b[2J\x1b]0;title\x07\x9b31m\xc2\x9b\r\x08\xe2\x80\xae\xe2\x80\xa8\xef\xbb\xbf[red][link=x]\xe9"
)


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """A folder of a nasty name with nasty names in it: a good picture, a bad one, a text that says as much."""
    folder = tmp_path / f"photos{NASTY}"
    paint(folder / f"red{NASTY}.png", "red", seed=1)
    (folder / f"bad{NASTY}.jpg").write_bytes(b"no picture")
    (folder / f"note{NASTY}.txt").write_text("red \x1b[2J \x9b31m \u202e red", encoding="utf-8")
    (folder / "gone.png").write_bytes((folder / f"red{NASTY}.png").read_bytes() + b"x")
    return folder


COMMANDS = (
    ["index"], ["index", "--json"], ["index", "--profile"], ["search", "red"], ["search", "red", "--json"],
    ["search", NASTY], ["search", NASTY, "--json"], ["similar"], ["status"], ["status", "--json"],
    ["errors"], ["errors", "--json"], ["doctor"], ["prune", "--dry-run"], ["prune", "--dry-run", "--json"], ["prune"],
    # what cannot be done, and says what was typed
    [NASTY], ["search", "red", f"--{NASTY}"], ["search", "red", "--in", NASTY], ["search", "red", "--since", NASTY],
    ["search", "red", "--folder", NASTY], ["search", "red", "-k", NASTY], ["search", "red", "--queries", NASTY],
    ["search", "red", "--model", NASTY], ["status", "--library", NASTY], ["index", NASTY], ["similar", NASTY],
    ["relocate", NASTY, NASTY], ["import", NASTY], ["import", NASTY, "--library", NASTY],
    ["index", "--exclude", f"{NASTY}["], ["eval", NASTY], ["train", NASTY],
)  # fmt: skip


def test_no_command_prints_a_control_character(
    nasty: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("mmsearch.model_choice.load_encoder", load_fake)
    assert cli.main(["index", str(nasty)]) == 3
    (nasty / "gone.png").unlink()
    capfdbinary.readouterr()
    for command in COMMANDS:
        more = [nasty] if command[0] == "index" and NASTY not in command else []
        more = [nasty / f"red{NASTY}.png"] if command == ["similar"] else more
        code = cli.main([*command, *map(str, more)])
        out, err = capfdbinary.readouterr()
        assert code in range(4), (command, err)
        assert control_bytes(out) == control_bytes(err) == set(), (command, out, err)
        assert b"unexpected" not in err, (command, err)
        assert code != 2 or err.count(b"\n") == 1, (command, err)


def test_what_the_catalog_says_is_shown_the_same_way(run: Run, nasty: Path, home: Path) -> None:
    run("index", nasty)
    catalog = home / "library" / "catalog.sqlite"
    for statement in ("UPDATE assets SET error = ?", "UPDATE models SET name = ?", "UPDATE roots SET reason = ?"):
        spoilt = shutil.copytree(home / "library", home / statement.split()[1])
        connection = sqlite3.connect(spoilt / catalog.name)
        try:
            connection.execute(statement, (f"model{NASTY}".encode("utf-8", "replace").decode(),))
            connection.commit()
        except sqlite3.OperationalError:  # no such column in this version
            pass
        finally:
            connection.close()
        for command in (["search", "red"], ["status"], ["errors"], ["doctor"], ["index", str(nasty)]):
            answer = run(*command, "--library", spoilt)
            assert control_bytes(os.fsencode(answer.out + answer.err)) == set(), (command, answer)


def test_a_name_comes_back_exactly_where_a_program_reads_it(
    nasty: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("mmsearch.model_choice.load_encoder", load_fake)
    cli.main(["index", str(nasty)])
    capfdbinary.readouterr()
    cli.main(["search", "red", "-0"])
    assert os.fsencode(nasty / f"red{NASTY}.png") in capfdbinary.readouterr().out.split(b"\0")
    cli.main(["search", "red", "--paths"])
    assert os.fsencode(nasty / f"red{NASTY}.png") + b"\n" in capfdbinary.readouterr().out
    cli.main(["search", "red", "--json"])
    paths = [hit["path"] for hit in json.loads(capfdbinary.readouterr().out)["hits"]]
    assert str(nasty / f"red{NASTY}.png") in paths


def test_a_library_whose_name_sqlite_cannot_take_is_one_line(run: Run, nasty: Path, tmp_path: Path) -> None:
    long = tmp_path.joinpath(*["x" * 200] * 2, "y" * (505 - len(str(tmp_path)) - 403))
    assert len(str(long)) == 505
    for library, words in ((tmp_path / os.fsdecode(b"l\xff"), "is not UTF-8"), (long, "is 505 bytes long")):
        for command in (["index", nasty], ["search", "red"], ["status"], ["errors"], ["doctor"], ["serve", "--socket"]):
            answer = run(*command, "--library", library)
            assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
            assert words in answer.err
            assert "--library" in answer.err
        assert not library.exists()
        run("index", nasty)
        answer = run("backup", library)
        assert (answer.code, words[-10:] in answer.err) == (2, True), answer
