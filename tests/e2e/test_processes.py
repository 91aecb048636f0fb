"""What only a process of its own can show: Ctrl-C, kill -9, a closed pipe, and what a cold start imports and costs."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmsearch import Library
from tests.e2e.processes import RUNNER, environment, finish, imported_by, seconds_of
from tests.fakes import FakeEncoder, paint


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    for number in range(40):
        paint(folder / f"{number:02}.png", ("red", "green", "blue", "yellow")[number % 4], seed=number)
    return folder


def hear_ctrl_c() -> None:
    """A shell that runs the tests in its background has them ignore Ctrl-C, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_and_wait_for_batches(home: Path, folder: Path, log: Path, batches: int) -> subprocess.Popen[str]:
    """Index slowly, four pictures a batch, and return when `batches` batches were encoded."""
    (home / "config.toml").write_text("batch_size = 4\n", encoding="utf-8")
    more = {"FAKE_DELAY_S": "0.3", "FAKE_LOG": str(log)}
    process = subprocess.Popen(
        [*RUNNER, "index", str(folder)],
        env=environment(home, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    deadline_s = time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < batches:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return process


def encoded(log: Path) -> int:
    """Files encoded by every process that wrote to `log`."""
    return sum(int(line.split()[1]) for line in log.read_text().splitlines())


def test_ctrl_c_is_one_line_exit_130_and_the_next_run_goes_on(home: Path, many: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start_and_wait_for_batches(home, many, log, 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""
    kept = "interrupted; every finished batch is kept"
    lines = [line for line in err.splitlines() if " of 40 files, " not in line]  # progress, on a slow machine
    assert lines == [f"mmsearch: {kept}; run the same command again to go on"]
    again = json.loads(finish(home, "index", many, "--json", FAKE_LOG=str(log)).stdout)
    assert again["unchanged"] + again["added"] == 40
    assert again["unchanged"] >= 8
    assert 40 <= encoded(log) <= 44  # at most one batch of four is encoded twice


def test_kill_9_then_index_again_equals_an_undisturbed_library(home: Path, many: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start_and_wait_for_batches(home, many, log, 4)
    process.kill()
    process.communicate(timeout=120)
    assert finish(home, "index", many, FAKE_LOG=str(log)).returncode == 0
    assert 40 <= encoded(log) <= 44  # at most one batch of four is encoded twice
    killed = Library.open(home / "library", model=FakeEncoder())
    whole = Library.open(tmp_path / "whole", model=FakeEncoder())
    whole.index(many)
    for ask in (
        lambda library: library.search("red", k=40),
        lambda library: library.search("blue", k=40),
        lambda library: library.similar(many / "07.png", k=40),
    ):
        assert ask(killed) == ask(whole)
        assert len(ask(killed)) >= 39


def test_while_one_process_indexes_a_second_is_told_who_and_a_search_answers(
    home: Path, many: Path, tmp_path: Path
) -> None:
    process = start_and_wait_for_batches(home, many, tmp_path / "log", 3)
    process.send_signal(signal.SIGSTOP)  # so that it is in the middle for as long as this takes
    try:
        second = finish(home, "index", many)
        assert second.returncode == 2
        assert second.stdout == ""
        assert f"process {process.pid} on {socket.gethostname()}" in second.stderr
        assert second.stderr.count("\n") == 1
        assert finish(home, "search", "red").returncode == 0
    finally:
        process.kill()
        process.communicate(timeout=120)


def test_a_closed_pipe_is_silent(home: Path, many: Path) -> None:
    finish(home, "index", many)
    search = f"{' '.join(RUNNER)} search red -k 40"
    done = subprocess.run(
        ["bash", "-c", f"{search} | true; exit ${{PIPESTATUS[0]}}"],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_on_a_terminal_the_bar_shows_rate_time_left_and_skips(home: Path, many: Path) -> None:
    (many / "broken.jpg").write_bytes(b"no picture")
    ours, theirs = pty.openpty()
    environ = environment(home, FAKE_DELAY_S="0.3", TERM="xterm", COLUMNS="100")
    process = subprocess.Popen([*RUNNER, "index", str(many)], env=environ, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how a terminal says that nobody writes to it any more
            break
        if not piece:
            break
        shown += piece
    out, _ = process.communicate(timeout=120)
    os.close(ours)
    assert process.returncode == 3
    assert out.startswith(b"40 added")
    assert re.search(rb"\d+/41.*\d+\.\d files/s.*ETA.*1 skipped", shown), shown[-2000:]


def test_help_answers_in_less_than_four_tenths_of_a_second(home: Path) -> None:
    assert seconds_of([sys.executable, "-m", "mmsearch", "--help"], environment(home)) < 0.4


def test_help_imports_nothing_heavy(home: Path) -> None:
    heavy = {"torch", "numpy", "PIL", "rich", "sqlalchemy", "faiss", "onnxruntime", "alembic"}
    assert imported_by(home, "from mmsearch.cli import app as cli; cli.main(['--help'])", heavy) == set()


def test_a_cold_search_is_quick_and_imports_neither_torch_nor_sentence_transformers(home: Path, many: Path) -> None:
    finish(home, "index", many)
    code = (
        "from mmsearch import model_choice; from mmsearch.cli import app as cli; "
        "from tests.e2e.runner import load_fake; model_choice.load_encoder = load_fake; "
        "assert cli.main(['search', 'red']) == 0"
    )
    heavy = {"torch", "sentence_transformers", "transformers", "alembic", "rich"}
    assert imported_by(home, code, heavy) == set()
    assert seconds_of([*RUNNER, "search", "red"], environment(home)) < 1.5
