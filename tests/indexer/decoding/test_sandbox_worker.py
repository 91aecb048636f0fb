"""The decoding process by itself: requests on stdin, answers on stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.decoding.decode import decode_image
from indexer.decoding.sandbox import WORKER, metadata_from_json
from tests.fakes import paint
from tests.indexer.decoding.samples import XMP, gradient

SIDE_PX = 32


def answers(requests: list[dict[str, Any]], **options: float) -> list[tuple[dict[str, Any], list[bytes]]]:
    """Run one worker over `requests` and split what it wrote."""
    settings = {"side_px": SIDE_PX, "timeout_s": 20, "memory_bytes": 2 << 30, **options}
    sent = "".join(json.dumps(one) + "\n" for one in requests).encode()
    done = subprocess.run([sys.executable, *WORKER, json.dumps(settings)], input=sent, capture_output=True, check=True)
    assert done.stdout.startswith(b"ready\n")
    rest, found = done.stdout.removeprefix(b"ready\n"), []
    while rest:
        line, _, rest = rest.partition(b"\n")
        answer = json.loads(line)
        parts = []
        for size in answer["part_bytes"]:
            parts.append(rest[:size])
            rest = rest[size:]
        found.append((answer, parts))
    return found


def test_one_worker_answers_one_file_after_another(tmp_path: Path) -> None:
    path = tmp_path / "ä\udcff.tiff"
    gradient(80, 60).save(path, tiffinfo={700: XMP})
    text = tmp_path / "text.png"
    text.write_text("no picture")
    wanted = [(path, True), (path, False), (text, True), (tmp_path / "absent", True)]
    whole, metadata, not_one, absent = answers([{"path": str(one), "pixels": pixels} for one, pixels in wanted])
    with path.open("rb") as file:
        here = decode_image(file, side_px=SIDE_PX)
    assert (whole[0]["size"], whole[0]["frames"], whole[0]["times_s"]) == ([80, 60], [[80, 60]], [])
    assert whole[1] == [here.image.tobytes()]
    assert metadata_from_json(whole[0]["metadata"]) == metadata_from_json(metadata[0]["metadata"]) == here.metadata
    assert metadata[1] == []
    assert not_one[0]["error"].startswith("not a picture")
    assert absent[0]["error"] == "cannot be read (No such file or directory)"


def test_every_frame_comes_as_its_pixels(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    ((answer, parts),) = answers([{"path": str(tmp_path / "a.gif"), "pixels": True}])
    assert answer["frames"] == [[20, 10]] * 3
    pixels = [np.frombuffer(part, np.uint8).reshape(10, 20, 3)[5, 5].tolist() for part in parts]
    assert pixels == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_memory_is_limited_and_no_core_is_written(tmp_path: Path) -> None:
    path = paint(tmp_path / "a.png")
    settings = json.dumps({"side_px": SIDE_PX, "timeout_s": 20, "memory_bytes": 3 << 30})
    process = subprocess.Popen([sys.executable, *WORKER, settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"path": str(path), "pixels": False}).encode() + b"\n")
    process.stdin.flush()
    assert process.stdout.readline().endswith(b"\n")
    limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    values = {line[:26].strip(): line[26:].split()[0] for line in limits[1:]}
    assert values["Max address space"] == str(3 << 30)
    assert values["Max core file size"] == "0"
    process.stdin.close()
    assert process.wait(20) == 0, "it ends when its input does"


@pytest.mark.skipif(os.name == "nt", reason="no interval timers on Windows")
def test_a_worker_whose_run_is_gone_ends_by_itself(tmp_path: Path) -> None:
    code = (
        "import indexer.base.worker as worker, indexer.decoding.sandbox_worker as me, time\n"
        "worker.SPARE_S = 0.0\n"
        "me.decode_image = lambda *_, **__: time.sleep(60)\n"
        "me.main()\n"
    )
    settings = json.dumps({"side_px": SIDE_PX, "timeout_s": 0.3, "memory_bytes": 2 << 30})
    request = json.dumps({"path": str(paint(tmp_path / "a.png")), "pixels": True}).encode() + b"\n"
    done = subprocess.run([sys.executable, "-c", code, settings], input=request, capture_output=True, timeout=50)
    assert done.returncode == -signal.SIGALRM
