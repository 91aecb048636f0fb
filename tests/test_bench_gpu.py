"""`python -m tests.bench.gpu` on a machine without a GPU: the rehearsal takes the same steps and says so."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("faiss")

from indexer.vectors import gpu as gpu_index
from tests import gpu_stand_in
from tests.bench import gpu

SMALL = gpu.Size((600,), batch=10, singles=2)


def rows_of(text: str) -> dict[str, list[str]]:
    """The table's cells by the first."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first.split(",")[0]: cells for first, *cells in lines}


def test_every_copy_is_held_against_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    with gpu_stand_in.installed(cuvs=True) as calls:
        gpu.parity(SMALL)
    rows = rows_of(capsys.readouterr().out)
    assert {name for name, _, _ in calls} >= {"flat", "lists", "cagra"}
    assert rows["flat"] == rows["cagra"] == ["1.0000", "100.0 %", "0.0e+00"]
    assert float(rows["lists"][0]) >= 0.9


def test_a_copy_that_fails_hides_no_other(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error 719\nand more")

    monkeypatch.setattr(gpu_index, "half_lists", fail)
    with gpu_stand_in.installed():
        gpu.speed(SMALL, 600)
    rows = rows_of(capsys.readouterr().out)
    assert rows["lists"][0] == "AssertionError: the CPU was asked in the GPU's place"
    for kind in ("flat", "1 of 20 lists"):
        assert [float(cell.replace(",", "")) > 0 for cell in rows[kind][-3:]] == [True] * 3


def test_without_a_gpu_it_rehearses_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str], **_: Any) -> Any:
        asked.append(command)
        if "encoding" in command:
            raise subprocess.TimeoutExpired(command, 1)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(gpu, "device_name", lambda: None)
    monkeypatch.setattr(gpu, "gpu_count", lambda: 0)
    monkeypatch.setattr(subprocess, "run", run)
    assert gpu.run_all(rehearse=False) == 1  # one part was cut off, and told
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("no CUDA device")
    assert "encoding: cut off" in out
    assert [re.sub(r"\d+", "N", command[4]) for command in asked] == ["parity", "encoding", "N"]
    assert all("--rehearse" in command for command in asked)
    asked.clear()
    monkeypatch.setattr(gpu, "device_name", lambda: "NVIDIA H100 80GB HBM3")
    gpu.run_all(rehearse=False)
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "# NVIDIA H100 80GB HBM3"
    assert "parity: left out, FAISS sees no GPU" in out
    assert [command[4] for command in asked] == ["encoding"]
