"""What pictures say of themselves: EXIF, XMP, IPTC, which words of it are captions, and hostile packets."""

from __future__ import annotations

import contextlib
import io
import struct
import time
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.decoding.camera_phrases import captions_of, is_personal
from indexer.decoding.decode import read_metadata
from indexer.decoding.metadata import Metadata, clean, from_packet, keywords, place
from indexer.decoding.xmp import PACKET_LIMIT_BYTES, Packet, read_iptc, read_xmp
from tests.indexer.decoding.test_decode import decoded, encoded, gradient

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:aux="http://ns.adobe.com/exif/1.0/aux/" aux:Lens="EF50mm f/1.4"
 exif:DateTimeOriginal="2020-05-04T03:02:01+02:00" exif:GPSLatitude="47,22.5N">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Zürich at night</rdf:li><rdf:li xml:lang="de">Nachts</rdf:li></rdf:Alt>
</dc:title><dc:description><rdf:Alt><rdf:li>Lights &amp; water</rdf:li></rdf:Alt></dc:description>
<dc:subject><rdf:Bag><rdf:li>lake</rdf:li><rdf:li>Anna</rdf:li></rdf:Bag></dc:subject>
<exif:GPSLongitude>8,33,0E</exif:GPSLongitude>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()


def iptc(*records: tuple[int, bytes], utf8: bool = True) -> bytes:
    data = b"\x1c\x01\x5a\x00\x03\x1b%G" if utf8 else b""
    return data + b"".join(b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(v)) + v for number, v in records)


def with_iptc(jpeg: bytes, packet: bytes) -> bytes:
    """The JPEG with a Photoshop block of IPTC records behind its first marker."""
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(packet)) + packet + b"\0" * (len(packet) % 2)
    segment = b"Photoshop 3.0\0" + block
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


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


def test_the_camera_dates_and_the_person_names() -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x0110] = "what the camera says", "X100"
    exif.get_ifd(0x8769).update({0x9003: "2019:07:06 05:04:03", 0xA434: "23mm F2"})
    exif.get_ifd(0x8825).update({1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)})
    data = encoded(gradient(), "JPEG", exif=exif, xmp=XMP)
    metadata = decoded(data).metadata
    assert (metadata.taken_at, metadata.lens, metadata.camera) == (datetime(2019, 7, 6, 5, 4, 3), "23mm F2", "X100")
    assert (metadata.title, metadata.description) == ("Zürich at night", "Lights & water")
    assert metadata.latitude_deg == pytest.approx(47.375), "(0, 0) is what devices without a position write"


def test_windows_titles_and_utf8_in_exif() -> None:
    exif = Image.Exif()
    exif[0x9C9B], exif[0x9C9E] = ("Opa's 80. Geburtstag\0".encode("utf-16-le"), "Opa;Fest\0".encode("utf-16-le"))
    exif[0x010E] = "Grüße".encode()
    found = decoded(encoded(gradient(), "JPEG", exif=exif)).metadata
    assert (found.title, found.description, found.keywords) == (
        "Opa's 80. Geburtstag",
        "Grüße",
        ("Opa", "Fest"),
    )


def test_one_source_over_another() -> None:
    place_only = Metadata(latitude_deg=1.0, longitude_deg=2.0)
    half = Metadata(latitude_deg=5.0, title="a")
    assert place_only.over(half) == Metadata(latitude_deg=1.0, longitude_deg=2.0, title="a")
    assert Metadata(keywords=("x",)).over(Metadata(keywords=("y",))).keywords == ("x",)
    assert place(91, 0) is place(float("nan"), 1) is place("1", 2) is place(0, 0) is None
    assert place(0, 10) == (0.0, 10.0)
    assert keywords(["b", "a", "b", "", None, 3]) == ("b", "a")
    assert clean(" a\0b \n\x07 c\ud800 ") == "ab c"


@pytest.mark.parametrize(
    "text",
    [
        "OLYMPUS DIGITAL CAMERA         ", "SONY DSC", "DCIM", "DSC00017", "IMG_1234", "P1010001", "2019-07-06",
        "SAMSUNG CAMERA PICTURES", "cof", "dav_vivid", "oznorWO", "oplus_131072", "<Digimax S500>", "default", "42",
        "[Digital Camera user]", "Processed with VSCO with a6 preset", "Created with GIMP", "(c) 2010 John Doe", "...",
        "https://example.org/a", "8f14e45fceea167a5a36dedd4bea2543", "Screenshot_20200101-101010_Chrome", "",
    ],
)  # fmt: skip
def test_what_no_person_said(text: str) -> None:
    assert not is_personal(text)
    assert captions_of(Metadata(title=text or None, description=text or None), "a.jpg") == []


@pytest.mark.parametrize(
    "text",
    [
        "dog",
        "David",
        "coffee",
        "Beach 2019",
        "Anna's 3rd birthday",
        "海",
        "taken in Paris",
        "Photo of the old tower, 1902",
    ],
)
def test_what_a_person_said(text: str) -> None:
    assert captions_of(Metadata(title=text), "a.jpg") == [text]


def test_captions_are_said_once() -> None:
    metadata = Metadata(title="The Lake", description="the lake", keywords=("lake", "untitled", "2019", "Anna"))
    assert captions_of(metadata, "IMG_1.jpg") == ["The Lake", "lake, Anna"]
    assert captions_of(metadata, "the lake.jpg") == ["lake, Anna"], "a file's name is no caption"


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
