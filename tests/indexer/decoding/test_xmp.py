"""XMP and IPTC packets: what is read of them, and hostile ones."""

from __future__ import annotations

import contextlib
import io
import time
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.decoding.decode import read_metadata
from indexer.decoding.metadata import Metadata, from_packet
from indexer.decoding.xmp import PACKET_LIMIT_BYTES, Packet, read_iptc, read_xmp
from tests.indexer.decoding.samples import XMP, decoded, encoded, gradient, iptc, with_iptc


def test_xmp() -> None:
    assert read_xmp(XMP) == Packet(
        title="Zürich at night",
        description="Lights & water",
        keywords=("lake", "Anna"),
        taken_at=datetime(2020, 5, 4, 3, 2, 1),
        latitude_deg=pytest.approx(47.375),
        longitude_deg=pytest.approx(8.55),
        lens="EF50mm f/1.4",
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_xmp_in_every_format(format: str) -> None:
    if format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        data = encoded(gradient(), "PNG", pnginfo=info)
    elif format == "TIFF":
        data = encoded(gradient(), "TIFF", tiffinfo={700: XMP})
    else:
        data = encoded(gradient(), format, xmp=XMP)
    metadata = decoded(data).metadata
    assert (metadata.title, metadata.keywords, metadata.lens) == ("Zürich at night", ("lake", "Anna"), "EF50mm f/1.4")
    assert metadata.taken_at == datetime(2020, 5, 4, 3, 2, 1)
    assert (metadata.latitude_deg, metadata.longitude_deg) == (pytest.approx(47.375), pytest.approx(8.55))
    assert read_metadata(io.BytesIO(data)) == metadata


def test_iptc() -> None:
    records = [(5, "Näme".encode()), (120, b"A long\rstory"), (25, b"sea"), (25, b"sun")]
    packet = iptc(*records, (55, b"20190706"), (60, b"050403+0100"))
    metadata = decoded(with_iptc(encoded(gradient(), "JPEG"), packet)).metadata
    assert metadata == Metadata(
        datetime(2019, 7, 6, 5, 4, 3), None, None, None, None, "Näme", "A long story", ("sea", "sun")
    )
    assert read_iptc(iptc((5, "Näme".encode("latin-1")), utf8=False)).title == "Näme"
    assert read_iptc(b"\x1c\x02\x05\xff\xff") == read_iptc(b"") == Packet()


BOMB = b"""<!DOCTYPE a [<!ENTITY l0 "lol">%s]><a>&l30;</a>""" % b"".join(
    b'<!ENTITY l%d "&l%d;&l%d;">' % (i, i - 1, i - 1) for i in range(1, 31)
)


@pytest.mark.parametrize("data", [BOMB, b"<a" * 1000, b"", b"\0", b"<a></b>", b" " * PACKET_LIMIT_BYTES + b"<a/>"])
def test_hostile_xmp(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="XMP"):
        read_xmp(data)
    assert time.process_time() - started < 1


def test_deep_and_wide_xmp() -> None:
    deep = b"<a>" * 100_000 + b"</a>" * 100_000
    assert read_xmp(deep) == Packet()
    many = XMP.replace(b"<rdf:li>lake</rdf:li>", b"<rdf:li>k</rdf:li>" * 20_000)
    assert len(from_packet(read_xmp(many)).keywords) <= 64


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(XMP) - 1), st.integers(0, 255)), max_size=8), st.binary(max_size=60))
def test_mutated_packets(changes: list[tuple[int, int]], tail: bytes) -> None:
    data = bytearray(XMP)
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(ValueError):
        from_packet(read_xmp(bytes(data)))
    from_packet(read_iptc(b"\x1c\x02" + tail))
