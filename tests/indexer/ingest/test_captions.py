"""Texts about photos: found beside them and in CSV files, and searched in the three views."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import DecodeError
from indexer.ingest.captions import parse
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.ingest.samples import found_with_text as found
from tests.indexer.ingest.samples import half, joint


def test_a_text_beside_a_photo(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.jpg", "red")
    (photos / "a.txt").write_text("blue sky")
    (photos / "b.txt").write_text("green words")
    report = store.ingest(photos, encoder)
    assert (report.added, report.encoded) == (3, 3)
    assert found(store, encoder, "blue") == [("a.jpg", "image", None), ("b.txt", "text", "green words")]
    assert [name for name, *_ in found(store, encoder, "red", "image")] == ["a.jpg"]
    assert found(store, encoder, "blue", "text") == [("a.txt", "text", "blue sky"), ("b.txt", "text", "green words")]
    status = store.status()
    assert (status.images, status.texts, status.captions) == (1, 2, 1)


def test_several_photos_share_a_text_and_names_with_two_suffixes(
    store: Store, photos: Path, encoder: FakeEncoder
) -> None:
    for name in ("a.jpg", "a.png", "b.jpg"):
        paint(photos / name, "red", size=(40, 40 + len(name)))
    (photos / "a.txt").write_text("blue")
    (photos / "b.jpg.txt").write_text("green")
    (photos / "a.md").write_text("notes stand alone")
    store.ingest(photos, encoder)
    assert store.status().captions == 3
    assert [name for name, *_ in found(store, encoder, "red") if name.endswith("txt")] == []
    assert ("a.md", "text", "notes stand alone") in found(store, encoder, "red")


def test_captions_csv(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "set" / "images" / "a.jpg", "red")
    paint(photos / "set" / "b.jpg", "green")
    lines = ["image,split,caption", "a.jpg,train,blue sky", 'a.jpg,train,"blue, again"', "b.jpg,val,yellow"]
    (photos / "set" / "captions.csv").write_text("\n".join(lines))
    report = store.ingest(photos, encoder)
    assert (report.added, report.encoded, report.skipped) == (2, 5, 0)
    assert found(store, encoder, "blue", "text") == [
        ("a.jpg", "text", "blue sky"), ("a.jpg", "text", "blue, again"), ("b.jpg", "text", "yellow")
    ] or found(store, encoder, "blue", "text")[2] == ("b.jpg", "text", "yellow")  # fmt: skip
    assert [name for name, *_ in found(store, encoder, "blue")] == ["a.jpg", "b.jpg"]
    assert store.ingest(photos, encoder).encoded == 0


def test_a_changed_caption_encodes_only_texts(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.jpg", "red")
    (photos / "a.txt").write_text("blue")
    paint(photos / "b.jpg", "red", seed=1)
    table = photos / "captions.csv"
    table.write_text("image,caption\nb.jpg,green\n")
    store.ingest(photos, encoder)
    before = store.posterior_of(photos / "a.jpg", encoder.fingerprint)
    (photos / "a.txt").write_text("purple now")
    table.write_text("image,caption\nb.jpg,green\nb.jpg,grey too\n")
    report = store.ingest(photos, encoder)
    assert (encoder.images_encoded, encoder.texts_encoded, report.encoded, report.updated) == (2, 4, 2, 1)
    after = store.posterior_of(photos / "a.jpg", encoder.fingerprint)
    assert before is not None
    assert after is not None
    image, text = half(encoder.embed_images([photos / "a.jpg"])), half(encoder.embed_texts(["purple now"]))
    expected = joint(encoder, image, text)
    np.testing.assert_allclose(after.mu, expected.mu, atol=0.01)
    assert np.abs(after.mu - before.mu).max() > 0.05
    table.write_text("image,caption\nb.jpg,grey too\n")  # the other caption is gone
    encoded = encoder.encoded
    store.ingest(photos, encoder)
    assert encoder.encoded == encoded
    assert [text for _, _, text in found(store, encoder, "x", "text")].count("green") == 0
    table.write_text("image,caption\nb.jpg,grey too\nb.jpg,green\n")  # and back, with the vector it had
    store.ingest(photos, encoder)
    assert encoder.encoded == encoded
    assert [text for _, _, text in found(store, encoder, "x", "text")].count("green") == 1


def test_captions_that_leave(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.jpg", "red")
    (photos / "a.txt").write_text("blue")
    store.ingest(photos, encoder)
    alone = half(encoder.embed_images([photos / "a.jpg"])).mu
    for change in (lambda: (photos / "a.txt").unlink(), lambda: (photos / "a.txt").write_text("")):
        change()
        store.ingest(photos, encoder)
        stored = store.posterior_of(photos / "a.jpg", encoder.fingerprint)
        assert stored is not None
        np.testing.assert_array_equal(stored.mu, alone)
        assert [name for name, *_ in found(store, encoder, "blue")] == ["a.jpg"]


def test_a_photo_that_leaves_sets_its_text_free(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.jpg", "red")
    (photos / "a.txt").write_text("blue")
    paint(photos / "b.jpg", "green")
    (photos / "captions.csv").write_text("image,caption\na.jpg,yellow\n")
    store.ingest(photos, encoder)
    shutil.move(photos / "a.jpg", photos.parent / "a.jpg")
    encoded = encoder.encoded
    report = store.ingest(photos, encoder)
    assert found(store, encoder, "blue") == [("a.txt", "text", "blue"), ("b.jpg", "image", None)]
    assert found(store, encoder, "blue", "text") == [("a.txt", "text", "blue")]
    assert report.skipped == 1  # the row of the CSV
    shutil.move(photos.parent / "a.jpg", photos / "a.jpg")
    assert store.ingest(photos, encoder).skipped == 0
    assert sorted(name for name, *_ in found(store, encoder, "blue")) == ["a.jpg", "b.jpg"]
    assert len(found(store, encoder, "blue", "text")) == 2
    assert encoder.encoded == encoded


def test_a_captioned_photo_moves_with_its_text(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.jpg", "red")
    (photos / "a.txt").write_text("blue")
    store.ingest(photos, encoder)
    before = store.posterior_of(photos / "a.jpg", encoder.fingerprint)
    (photos / "sub").mkdir()
    for name in ("a.jpg", "a.txt"):
        (photos / name).rename(photos / "sub" / name)
    report = store.ingest(photos, encoder)
    assert (report.moved, report.encoded) == (2, 0)
    after = store.posterior_of(photos / "sub" / "a.jpg", encoder.fingerprint)
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after.mu, before.mu)


def test_rows_without_a_picture_are_one_skip(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.jpg", "red")
    lines = ["image,caption", "a.jpg,one", "no.jpg,two", "../../etc/passwd,three", ",four", "a.jpg,", "short"]
    (photos / "captions.csv").write_text("\n".join(lines))
    assert store.ingest(photos, encoder).skipped == 1
    (error,) = store.errors()
    assert error.path == photos / "captions.csv"
    assert error.reason == "2 of 3 rows name no picture here, the first in line 3: 'no.jpg'"
    assert store.ingest(photos, encoder).skipped == 1
    (photos / "captions.csv").write_text("image,caption\na.jpg,one\n")
    assert store.ingest(photos, encoder).skipped == 0
    assert store.errors() == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "none"),
        (b"picture,words\na.jpg,x\n", "picture, words"),
        (b"image,caption\na.jpg," + b"x" * 200_000 + b"\n", "not CSV"),
    ],
)
def test_a_csv_that_is_none(store: Store, photos: Path, encoder: FakeEncoder, data: bytes, reason: str) -> None:
    paint(photos / "a.jpg", "red")
    (photos / "captions.csv").write_bytes(data)
    assert store.ingest(photos, encoder).skipped == 1
    assert reason in store.errors()[0].reason


def test_headers_and_encodings(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    assert list(parse(["Caption , IMAGE\r\n", "first,a.jpg\r\n"])) == [(2, "a.jpg", "first")]
    assert list(parse(["image,caption\n", 'a.jpg,"two\n', 'lines"\n'])) == [(3, "a.jpg", "two\nlines")]
    with pytest.raises(DecodeError):
        list(parse(["a.jpg,caption\n"]))
    paint(photos / "é.jpg", "red")
    (photos / "captions.csv").write_bytes("\ufeffimage,caption\né.jpg,où\n".encode())
    store.ingest(photos, encoder)
    assert found(store, encoder, "où", "text") == [("é.jpg", "text", "où")]
    (photos / "captions.csv").write_bytes("image,caption\né.jpg,là\n".encode("latin-1"))
    store.ingest(photos, encoder)
    assert found(store, encoder, "là", "text") == [("é.jpg", "text", "là")]


def test_equal_captions_are_encoded_once(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    for number in range(3):
        paint(photos / f"{number}.jpg", "red", seed=number)
    rows = [f"{number}.jpg,the same words" for number in range(3)]
    (photos / "captions.csv").write_text("\n".join(["image,caption", *rows, "0.jpg,the same words"]))
    store.ingest(photos, encoder, batch_size=2)
    assert encoder.texts_encoded == 1
    assert len(found(store, encoder, "same", "text")) == 3


def test_a_csv_above_the_part_that_is_indexed(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a" / "1.jpg", "red", seed=1)
    paint(photos / "b" / "2.jpg", "red", seed=2)
    (photos / "captions.csv").write_text("image,caption\na/1.jpg,one\nb/2.jpg,two\n")
    store.ingest(photos, encoder)
    assert len(found(store, encoder, "x", "text")) == 2
    paint(photos / "a" / "3.jpg", "red", seed=3)
    store.ingest(photos / "a", encoder)
    assert len(found(store, encoder, "x", "text")) == 2


def test_own_captions_are_found_for_a_photo_that_is_excluded(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.jpg", "red")
    paint(photos / "b.jpg", "red", seed=1)
    (photos / "captions.csv").write_text("image,caption\na.jpg,red thing\n")
    store.ingest(photos, encoder)
    asset_id = store.asset_id_of(photos / "a.jpg")
    assert asset_id is not None
    posterior = store.posterior_of(photos / "a.jpg", encoder.fingerprint)
    assert posterior is not None
    options = {"fingerprint": encoder.fingerprint, "exclude": [asset_id]}
    assert [hit.path.name for hit in store.search(posterior.mu[0], 5, **options)] == ["b.jpg"]
    assert [hit.text for hit in store.search(posterior.mu[0], 5, within="text", **options)] == ["red thing"]
