"""Sidecar files (Google Takeout JSON, XMP): which picture they belong to, and what they add to it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.base.errors import DecodeError, DecodeInterrupted
from indexer.decoding.metadata import Metadata
from indexer.decoding.sandbox import Sandbox
from indexer.ingest.sidecars import SIDECAR_BYTES, parse_takeout, pictures_of
from indexer.store import Store
from tests.fakes import FakeEncoder
from tests.indexer.decoding.samples import XMP, heif
from tests.indexer.ingest.samples import TAKEOUT, hits, painted, said


def test_takeout_sidecars(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    painted(photos / "album" / "a.jpg", seed=1)
    sidecar = photos / "album" / "a.jpg.supplemental-metadata.json"
    sidecar.write_text(json.dumps(TAKEOUT))
    store.ingest(photos, encoder)
    assert said(store, encoder) == [("a.jpg", "Anna, Ben"), ("a.jpg", "a blue whale")]
    hit = hits(store, encoder, "a blue whale", "image")[0]
    assert (hit.taken_at, hit.latitude_deg, hit.longitude_deg) == (datetime(2019, 7, 6, 5, 4, 3), 47.5, 8.25)

    sidecar.write_text(json.dumps(TAKEOUT | {"description": "a grey whale", "people": []}))
    report = store.ingest(photos / "album", encoder)  # a part of the root, too
    assert (report.encoded, report.unchanged) == (1, 1)
    assert said(store, encoder) == [("a.jpg", "a grey whale")]

    painted(photos / "album" / "a.jpg", seed=3)  # a changed picture keeps its sidecar
    store.ingest(photos, encoder)
    hit = hits(store, encoder, "red", "image")[0]
    assert (hit.taken_at, hit.camera) == (datetime(2019, 7, 6, 5, 4, 3), "X100")

    sidecar.unlink()
    store.ingest(photos, encoder)
    assert said(store, encoder) == []
    hit = hits(store, encoder, "red", "image")[0]
    assert (hit.taken_at, hit.latitude_deg, hit.camera) == (None, None, "X100")


def test_the_pictures_own_date_comes_first(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2001:02:03 04:05:06"
    Image.new("RGB", (8, 8), "red").save(photos / "a.jpg", exif=exif)
    (photos / "a.jpg.json").write_text(json.dumps(TAKEOUT))
    (photos / "a.xmp").write_bytes(XMP)
    store.ingest(photos, encoder)
    (hit,) = hits(store, encoder, "red", "image")
    assert (hit.taken_at, hit.latitude_deg) == (datetime(2001, 2, 3, 4, 5, 6), 47.5)
    texts = {"a blue whale", "Anna, Ben", "Zürich at night", "Lights & water", "lake, Anna"}
    assert {text for _, text in said(store, encoder)} == texts


def test_the_same_words_twice_are_one_caption(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    painted(photos / "a.jpg", "a blue whale")
    (photos / "a.jpg.json").write_text(json.dumps(TAKEOUT | {"people": []}))
    (photos / "captions.csv").write_text("image,caption\na.jpg,a blue whale\n")
    store.ingest(photos, encoder)
    assert said(store, encoder) == [("a.jpg", "a blue whale")]
    (photos / "captions.csv").unlink()
    assert store.ingest(photos, encoder).encoded == 0
    assert said(store, encoder) == [("a.jpg", "a blue whale")]


def test_broken_sidecars_are_recorded_until_they_are_mended(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    painted(photos / "a.jpg")
    (photos / "a.jpg.json").write_text("{")
    (photos / "a.xmp").write_bytes(b"<x")
    (photos / "settings.json").write_text("{")  # of no picture, and nobody's business
    for _ in range(2):
        assert store.ingest(photos, encoder).skipped == 2
        reasons = {error.path.name: error.reason for error in store.errors()}
        assert set(reasons) == {"a.jpg.json", "a.xmp"}
        assert "not JSON" in reasons["a.jpg.json"]
        assert "XML" in reasons["a.xmp"]
    (photos / "a.jpg.json").write_text('{"shapes": []}')  # JSON of another kind
    (photos / "a.xmp").unlink()
    assert store.ingest(photos, encoder).skipped == 0


LONG = "a_very_long_name_of_a_photo_with_a_date_20190706_050403.jpg"  # Takeout keeps 46 characters


@pytest.mark.parametrize(
    ("sidecar", "names", "wanted"),
    [
        ("a.jpg.json", ["a.jpg", "b.jpg"], ["a.jpg"]),
        ("a.jpg.supplemental-metadata.json", ["a.jpg"], ["a.jpg"]),
        ("a.jpg.supplemental-me.json", ["a.jpg"], ["a.jpg"]),
        ("a.jpg.s.json", ["a.jpg"], ["a.jpg"]),
        ("a.jpg..json", ["a.jpg"], ["a.jpg"]),
        ("a.jpg(1).json", ["a.jpg", "a(1).jpg"], ["a(1).jpg"]),
        ("a.jpg.supplemental-metadata(2).json", ["a.jpg", "a(2).jpg"], ["a(2).jpg"]),
        ("a(1).jpg.json", ["a.jpg", "a(1).jpg"], ["a(1).jpg"]),
        ("a.jpg.json", ["a.jpg", "a-edited.jpg", "a-bearbeitet.png"], ["a.jpg", "a-edited.jpg", "a-bearbeitet.png"]),
        ("a.json", ["a.jpg"], ["a.jpg"]),
        (f"{LONG[:46]}.json", [LONG, "b.jpg"], [LONG]),
        (f"{LONG[:46]}.json", [LONG, LONG.replace("0403", "0404")], []),  # it may be either's
        (f"{LONG[:46]}(1).json", [LONG, LONG.replace(".jpg", "(1).jpg")], [LONG.replace(".jpg", "(1).jpg")]),
        (f"{LONG[:44]}.s.json", [LONG], []),  # cut after a name that is not there
        ("a.jpg.json", ["A.jpg", "b.jpg"], []),
        ("photo.json", ["photo_2.jpg"], []),
        ("a.xmp", ["a.cr2", "a.jpg", "b.jpg"], ["a.cr2", "a.jpg"]),
        ("a.cr2.xmp", ["a.cr2", "a.jpg"], ["a.cr2"]),
        (".json", ["a.jpg"], []),
    ],
)
def test_names_of_sidecars(sidecar: str, names: list[str], wanted: list[str]) -> None:
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(name.rpartition(".")[0], []).append(name)
    assert pictures_of(sidecar, stems, frozenset(names)) == wanted


@pytest.mark.parametrize(
    "data",
    [
        b'{"photoTakenTime": {"timestamp": "9999999999999999999"}, "geoData": {"latitude": "47"}, "people": "Anna"}',
        b'{"photoTakenTime": 3, "geoData": [1, 2], "geoDataExif": {"latitude": 1e999, "longitude": 2}, "people": [3]}',
        b'{"photoTakenTime": {"timestamp": null}, "geoData": {"latitude": 0.0, "longitude": 0.0}, "description": 7}',
    ],
)
def test_takeout_of_the_wrong_types(data: bytes) -> None:
    found = parse_takeout(data)
    assert found is not None
    assert (found.taken_at, found.latitude_deg, found.description, found.keywords) == (None, None, None, ())


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 200_000, b'{"a": ' + b"9" * 10_000 + b"}", b"{} x"])
def test_what_is_not_json(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not JSON"):
        parse_takeout(data)


WORDS = st.sampled_from(["timestamp", "latitude", "longitude", "name", "", "1e9", "-5", "\ud800", "x" * 3000])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(TAKEOUT)), JSON))
def test_takeout_of_any_types(value: dict[str, Any]) -> None:
    found = parse_takeout(json.dumps(value).encode())
    if found is not None and found.latitude_deg is not None:
        assert -90 <= found.latitude_deg <= 90


def test_a_huge_sidecar_is_not_read(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    painted(photos / "a.jpg")
    (photos / "a.jpg.json").write_bytes(b" " * (SIDECAR_BYTES + 1))
    assert store.ingest(photos, encoder).skipped == 1
    assert "at most" in store.errors()[0].reason


def test_a_header_whose_reader_was_killed_is_read_by_the_next_run(
    store: Store, encoder: FakeEncoder, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "a.heic").write_bytes(heif(Image.new("RGB", (48, 40), "red"), quality=95))
    store.ingest(photos, encoder)
    with store._catalog.begin() as connection:
        connection.exec_driver_sql("DELETE FROM about")  # as in a library of an older version
    read = []

    def killed(self: Sandbox, path: Path) -> Metadata:
        read.append(path.name)
        raise DecodeInterrupted("SIGKILL")

    with monkeypatch.context() as patch:
        patch.setattr(Sandbox, "read_metadata", killed)
        store.ingest(photos, encoder)
        store.ingest(photos, encoder)
    assert read == ["a.heic", "a.heic"]
    store.ingest(photos, encoder)
    monkeypatch.setattr(Sandbox, "read_metadata", killed)
    store.ingest(photos, encoder)
    assert len(read) == 2
