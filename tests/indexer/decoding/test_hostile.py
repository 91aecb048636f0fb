"""Some hundreds of broken files: each decodes or gives a reason, in time; ten thousand in `bench/hostile.py`."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from indexer.base.errors import DecodeError
from indexer.decoding.decode import decode_image, read_metadata
from indexer.decoding.metadata import from_packet
from indexer.decoding.sandbox import Sandbox
from indexer.decoding.xmp import read_iptc, read_xmp
from indexer.files.kinds import RISKY, kind_of
from indexer.ingest.sidecars import parse_takeout
from tests.indexer.decoding.mutations import mutated, seeds, sidecar_seeds

QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))
SECONDS = 10.0  # for pictures that take milliseconds: a hang, not a busy machine


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(32, timeout_s=SECONDS, memory_bytes=2 << 30) as one:
        yield one


def test_every_seed_is_a_picture(sandbox: Sandbox, tmp_path: Path) -> None:
    for name, data in seeds().items():
        (tmp_path / "seed").write_bytes(data)
        assert sandbox.decode(tmp_path / "seed").image.mode == "RGB", name


@pytest.mark.filterwarnings("ignore")
@settings(QUIET, max_examples=250)
@given(mutated({name: data for name, data in seeds().items() if kind_of(data) not in RISKY and name != "raw"}))
def test_ordinary_formats_in_this_process(made: tuple[str, bytes]) -> None:
    started = time.process_time()
    for read in (lambda file: decode_image(file, side_px=32, pixel_limit=4_000_000), read_metadata):
        if kind_of(made[1]) not in RISKY:
            with contextlib.suppress(DecodeError):
                read(io.BytesIO(made[1]))
    assert time.process_time() - started < SECONDS, made[0]


@settings(QUIET, max_examples=150)
@given(made=mutated({name: data for name, data in seeds().items() if kind_of(data) in RISKY}))
def test_other_formats_in_a_worker(
    sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory, made: tuple[str, bytes]
) -> None:
    path, reason = tmp_path_factory.getbasetemp() / "hostile", ""
    path.write_bytes(made[1])
    try:
        assert sandbox.decode(path).image.mode == "RGB"
    except DecodeError as error:
        reason = str(error)
    assert "\n" not in reason
    assert len(reason) < 240


@settings(QUIET, max_examples=250)
@given(mutated(sidecar_seeds()))
def test_sidecars(made: tuple[str, bytes]) -> None:
    name, data = made
    with contextlib.suppress(DecodeError, ValueError):
        if name == "json":
            parse_takeout(data)
        else:
            from_packet(read_xmp(data) if name == "xmp" else read_iptc(data))
