"""Metadata in the library: words become captions, dates and places come with hits, sidecars come and go."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.base.errors import DecodeError
from indexer.catalog import visibility
from indexer.ingest.sidecars import SIDECAR_BYTES, parse_takeout, pictures_of
from indexer.store import CATALOG_FILE, Store, StoredHit
from tests.fakes import FakeEncoder, paint
from tests.indexer.decoding.samples import XMP

TAKEOUT: dict[str, Any] = {
    "title": "a.jpg",
    "description": "a blue whale",
    "photoTakenTime": {"timestamp": "1562389443", "formatted": "..."},
    "geoData": {"latitude": 47.5, "longitude": 8.25, "altitude": 400.0},
    "people": [{"name": "Anna"}, {"name": "Ben"}],
}


def painted(path: Path, title: str | None = None, *, seed: int = 1) -> Path:
    """A picture with EXIF, and with a title where one is given."""
    paint(path, "red", seed=seed)
    exif = Image.Exif()
    exif[0x010E], exif[0x0110] = title or "SONY DSC", "X100"
    with Image.open(path) as image:
        image.save(path, exif=exif)
    return path


def hits(store: Store, encoder: FakeEncoder, text: str, within: Any = None) -> list[StoredHit]:
    query = encoder.embed_texts([text]).mu[0]
    return store.search(query, 20, fingerprint=encoder.fingerprint, within=within)


def said(store: Store, encoder: FakeEncoder) -> list[tuple[str, str | None]]:
    return sorted((hit.path.name, hit.text) for hit in hits(store, encoder, "a", "text"))


def rows(store: Store, query: str) -> list[tuple[Any, ...]]:
    with store._catalog.begin() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def test_words_in_a_picture_are_its_captions(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    painted(photos / "a.jpg", "a purple elephant", seed=1)
    painted(photos / "b.jpg", seed=2)
    assert store.ingest(photos, encoder).encoded == 3  # the camera's phrase is no caption
    assert said(store, encoder) == [("a.jpg", "a purple elephant")]
    first = hits(store, encoder, "a purple elephant", "image")[0]
    assert (first.path.name, first.camera) == ("a.jpg", "X100")
    again = store.ingest(photos, encoder)
    assert (again.encoded, again.unchanged) == (0, 2)


def test_a_moved_and_a_copied_picture_keep_their_words(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    painted(photos / "a.jpg", "a purple elephant")
    store.ingest(photos, encoder)
    (photos / "a.jpg").rename(photos / "z.jpg")
    shutil.copy(photos / "z.jpg", photos / "c.jpg")
    report = store.ingest(photos, encoder)
    assert (report.moved, report.added, report.encoded) == (1, 1, 0)
    assert said(store, encoder) == [("c.jpg", "a purple elephant"), ("z.jpg", "a purple elephant")]
    assert {hit.camera for hit in hits(store, encoder, "red", "image")} == {"X100"}


def test_other_words_in_a_changed_picture(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    painted(photos / "a.jpg", "a purple elephant", seed=1)
    store.ingest(photos, encoder)
    painted(photos / "a.jpg", "a green parrot", seed=2)
    store.ingest(photos, encoder)
    assert said(store, encoder) == [("a.jpg", "a green parrot")]
    (photos / "a.jpg").write_bytes(b"\xff\xd8\xff broken")
    store.ingest(photos, encoder)
    assert said(store, encoder) == []
    assert rows(store, "SELECT count(*) FROM about") == [(0,)]


def test_an_old_library_is_asked_once_and_encodes_only_words(tmp_path: Path, photos: Path) -> None:
    painted(photos / "a.jpg", "a purple elephant", seed=1)
    painted(photos / "b.jpg", seed=2)
    encoder = FakeEncoder()
    with Store.open(tmp_path / "library", create=True) as store:
        store.ingest(photos, encoder)
        with store._catalog.begin() as connection:  # as version 0001 left it
            for statement in (
                "DELETE FROM vectors WHERE caption_id IS NOT NULL OR role = 'fused'", "DELETE FROM captions",
                "UPDATE alembic_version SET version_num = '0001'", "UPDATE assets SET camera = NULL",
                "DROP TABLE about",
                "DROP TABLE frames",
                "ALTER TABLE generations DROP COLUMN facts",
            ):  # fmt: skip
                connection.exec_driver_sql(statement)
            visibility.drop(connection)
        vectors = rows(store, "SELECT id, asset_id, mu FROM vectors ORDER BY id")
    encoder = FakeEncoder()
    with Store.open(tmp_path / "library", create=True) as store:
        report = store.ingest(photos, encoder)
        assert (report.unchanged, report.encoded) == (2, 1)
        assert (encoder.images_encoded, encoder.texts_encoded) == (0, 1)
        assert rows(store, "SELECT id, asset_id, mu FROM vectors ORDER BY id")[:2] == vectors
        assert said(store, encoder) == [("a.jpg", "a purple elephant")]
        assert rows(store, "SELECT DISTINCT camera FROM assets") == [("X100",)]
        assert store.ingest(photos, encoder).encoded == 0
    assert (tmp_path / "library" / CATALOG_FILE).is_file()


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
