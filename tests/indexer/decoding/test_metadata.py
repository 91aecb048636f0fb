"""Metadata of a picture: EXIF, XMP and IPTC merged by precedence."""

from __future__ import annotations

from datetime import datetime

import pytest
from PIL import Image

from indexer.decoding.metadata import Metadata, clean, keywords, place
from tests.indexer.decoding.samples import XMP, decoded, encoded, gradient


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
