"""A folder of broken files: each is a recorded skip with its reason, exit code 3, never a traceback."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Run
from tests.fakes import paint


def png_header(side_px: int) -> bytes:
    """A PNG that claims `side_px` squared and holds nothing: the claim alone must be refused."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def bad_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "bad"
    whole = paint(folder / "good.jpg", "red", seed=1).read_bytes()
    (folder / "corrupt.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("not a picture at all", encoding="utf-8")
    (folder / "huge.png").write_bytes(png_header(30_000))
    (folder / "loop").symlink_to(folder)
    locked = folder / "locked"
    paint(locked / "hidden.png", "blue")
    locked.chmod(0)
    if os.geteuid() == 0:  # no mode keeps the superuser out, so the refusal is made here
        real = os.scandir

        def refuse(path: str) -> Iterator[os.DirEntry[str]]:
            if os.fspath(path) == str(locked):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr("os.scandir", refuse)
    yield folder
    locked.chmod(0o755)


def test_every_bad_file_is_a_recorded_skip(run: Run, bad_folder: Path) -> None:
    done = run("index", bad_folder)
    assert done.code == 3
    assert "Traceback" not in done.err
    assert "6 files skipped; 'mmsearch errors' lists them" in done.err
    assert done.out.startswith("1 added")

    listed = json.loads(run("errors", "--json").out)
    names = {os.path.relpath(item["path"], bad_folder) for item in listed}
    assert names == {"corrupt.jpg", "empty.png", "text.jpg", "huge.png", "loop", "locked"}
    reasons = {os.path.relpath(item["path"], bad_folder): item["reason"] for item in listed}
    assert "too large" in reasons["huge.png"]
    assert "not a picture" in reasons["text.jpg"]
    assert "empty" in reasons["empty.png"]
    assert "loop" in reasons["loop"]
    assert "Permission denied" in reasons["locked"]
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert len(run("errors").out.splitlines()) == 6
    assert run("errors", "-0").out.count("\0") == 6


def test_the_good_file_beside_them_is_found(run: Run, bad_folder: Path) -> None:
    run("index", bad_folder)
    assert run("search", "red", "--paths").out == f"{bad_folder / 'good.jpg'}\n"


def test_a_file_that_was_mended_is_no_longer_listed(run: Run, bad_folder: Path) -> None:
    run("index", bad_folder)
    paint(bad_folder / "corrupt.jpg", "green", (50, 50), seed=2)
    again = json.loads(run("index", bad_folder, "--json").out)
    assert again["encoded"] == 1
    assert "corrupt.jpg" not in run("errors").out
