"""Every layout gives the same examples; everything that would spoil a measurement is refused in one line."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from mmsearch.data.datasets import Example, read_dataset
from mmsearch.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "photos"
PAIRS = [
    ("a.jpg", "a cat", "train"),
    ("b.jpg", "a dog", "val"),
    ("a.jpg", "one cat", "train"),
    ("c.jpg", "sea", "test"),
]


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"picture of " + name.encode())


def write_csv(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("image", "caption", "split"), *rows])


def summary(examples: list[Example]) -> list[tuple[str, tuple[str, ...], str]]:
    return [(example.image.name, example.captions, example.split) for example in examples]


EXPECTED = [("a.jpg", ("a cat", "one cat"), "train"), ("b.jpg", ("a dog",), "val"), ("c.jpg", ("sea",), "test")]


@pytest.mark.parametrize("images", [".", "images"])
def test_csv_groups_captions_in_file_order(tmp_path: Path, images: str) -> None:
    pictures(tmp_path / images, "a.jpg", "b.jpg", "c.jpg")
    write_csv(tmp_path, PAIRS)
    assert summary(read_dataset(tmp_path)) == EXPECTED
    assert summary(read_dataset(tmp_path / "captions.csv")) == EXPECTED
    assert summary(read_dataset(tmp_path, "validation")) == EXPECTED[1:2]
    assert all(example.image.is_file() for example in read_dataset(tmp_path))


def test_csv_of_a_spreadsheet(tmp_path: Path) -> None:
    """A byte-order mark, capitals, another column, commas and line ends inside a caption, no split column."""
    pictures(tmp_path, "a b.jpg")
    text = '\ufeffCaption, Image ,source\r\n"a cat, asleep\non a bed",a b.jpg,me\r\n'
    (tmp_path / "captions.csv").write_bytes(text.encode())
    assert summary(read_dataset(tmp_path)) == [("a b.jpg", ("a cat, asleep\non a bed",), "train")]


def test_hugging_face_metadata(tmp_path: Path) -> None:
    pictures(tmp_path / "train", "a.jpg")
    pictures(tmp_path / "validation", "b.jpg")
    pictures(tmp_path / "test", "c.jpg")
    lines = {
        "train": [{"file_name": "a.jpg", "captions": ["a cat", "one cat"]}],
        "validation": [{"file_name": "b.jpg", "text": "a dog"}],
        "test": [{"file_name": "c.jpg", "caption": "sea"}],
    }
    for folder, entries in lines.items():
        (tmp_path / folder / "metadata.jsonl").write_text("\n".join(json.dumps(e) for e in entries) + "\n")
    assert sorted(summary(read_dataset(tmp_path))) == EXPECTED
    assert summary(read_dataset(tmp_path, "val")) == EXPECTED[1:2]


def test_hugging_face_split_field(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    entries = [{"file_name": name, "text": caption, "split": split} for name, caption, split in PAIRS]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(e) for e in entries))
    assert summary(read_dataset(tmp_path)) == EXPECTED


def coco(names: list[str], captions: list[tuple[int, str]]) -> str:
    images = [{"id": 7 + i, "file_name": name, "height": 2} for i, name in enumerate(names)]
    return json.dumps({"images": images, "annotations": [{"id": 1, "image_id": i, "caption": c} for i, c in captions]})


@pytest.mark.parametrize("images", ["val2017", "images", ".", "captions_val2017"])
def test_coco(tmp_path: Path, images: str) -> None:
    pictures(tmp_path / images, "0001.jpg", "0002.jpg")
    file = tmp_path / "captions_val2017.json"
    file.write_text(coco(["0001.jpg", "0002.jpg"], [(7, "a cat"), (8, "a dog"), (7, "one cat ")]))
    expected = [("0001.jpg", ("a cat", "one cat"), "val"), ("0002.jpg", ("a dog",), "val")]
    assert summary(read_dataset(file)) == expected
    assert summary(read_dataset(tmp_path, "val")) == expected


def test_coco_official_folders_with_one_split_downloaded(tmp_path: Path) -> None:
    pictures(tmp_path / "val2017", "0002.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/captions_val2017.json").write_text(coco(["0002.jpg"], [(7, "a dog")]))
    (tmp_path / "annotations/captions_train2017.json").write_text(coco(["0001.jpg"], [(7, "a cat")]))
    assert summary(read_dataset(tmp_path, "val")) == [("0002.jpg", ("a dog",), "val")]
    with pytest.raises(DataError, match=r"1 of 1 images that are missing, first 0001\.jpg"):
        read_dataset(tmp_path, "train")


@pytest.mark.parametrize("images", ["Images", "Flicker8k_Dataset", "images"])
def test_flickr8k_tokens_with_split_lists(tmp_path: Path, images: str) -> None:
    pictures(tmp_path / images, "a.jpg", "b.jpg", "c.jpg")
    tokens = "a.jpg#0\ta cat\nb.jpg#0\ta dog\na.jpg#1\tone cat\nc.jpg#0\tsea\nb.jpg.1#0\tin no list and absent\n"
    (tmp_path / "Flickr8k.token.txt").write_text(tokens)
    for part, name in (("train", "a.jpg"), ("dev", "b.jpg"), ("test", "c.jpg")):
        (tmp_path / f"Flickr_8k.{part}Images.txt").write_text(name + "\n")
    assert summary(read_dataset(tmp_path)) == EXPECTED


def test_flickr_tokens_alone_are_train(tmp_path: Path) -> None:
    pictures(tmp_path / "flickr30k-images", "a.jpg")
    (tmp_path / "results_20130124.token").write_text("a.jpg#0\ta cat # on a mat\n")
    assert summary(read_dataset(tmp_path)) == [("a.jpg", ("a cat # on a mat",), "train")]


def test_missing_pictures_are_counted(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "b.jpg")
    write_csv(tmp_path, PAIRS)
    with pytest.raises(DataError, match=r"2 of 3 images that are missing, first a\.jpg; looked in .*images"):
        read_dataset(tmp_path)


def test_one_picture_in_two_splits(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    write_csv(tmp_path, [("a.jpg", "a cat", "train"), ("a.jpg", "one cat", "val")])
    with pytest.raises(DataError, match=r"captions\.csv:3: a\.jpg is in two splits, 'train' and 'val'"):
        read_dataset(tmp_path)


def test_one_picture_in_two_coco_files(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "0001.jpg")
    for part in ("train2017", "val2017"):
        (tmp_path / f"captions_{part}.json").write_text(coco(["0001.jpg"], [(7, "a cat")]))
    with pytest.raises(DataError, match=r"0001\.jpg is in two splits"):
        read_dataset(tmp_path)


def test_empty_captions_are_dropped_with_a_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    write_csv(tmp_path, [("a.jpg", "a cat", "train"), ("a.jpg", " ", "train"), ("b.jpg", "", "val"), ("c.jpg", "", "")])
    assert summary(read_dataset(tmp_path)) == [("a.jpg", ("a cat",), "train")]  # c.jpg is not missed: nothing uses it
    assert len(caplog.messages) == 1
    assert "3 of 4 captions are empty and dropped, the first for a.jpg at" in caplog.text
    assert "captions.csv:3, and with them 2 pictures that have no other" in caplog.text


def test_absent_split_lists_the_splits(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    write_csv(tmp_path, PAIRS)
    with pytest.raises(DataError, match="no examples in split 'holdout'; its splits: test, train, val; name"):
        read_dataset(tmp_path, "holdout")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.csv", b"", "lacks"),
        ("captions.csv", b"image,text\na.jpg,cat\n", r"lacks \['caption'\]"),
        ("captions.csv", b"image,caption\n", "holds no captions"),
        ("captions.csv", b"image,caption\na.jpg, \na.jpg,  \n", r"captions\.csv holds 2 captions and all are empty"),
        ("captions.csv", b"image,caption\na.jpg\n", "1 captions and all are empty"),
        ("captions.csv", b"image,caption\n,cat\n", "no image named"),
        ("captions.csv", b"image,caption\na.jpg,caf\xe9\n", "not UTF-8"),
        ("metadata.jsonl", b'{"file_name": "a.jpg"}\n', "text, caption or captions"),
        ("metadata.jsonl", b'{"file_name": "a.jpg", "captions": []}\n', "all are empty"),
        ("metadata.jsonl", b'{"file_name": "a.jpg", "te', "not JSON"),
        ("metadata.jsonl", b'["a.jpg"]\n', "expected a JSON object"),
        ("captions_val.json", b'{"images": []}', "not COCO captions"),
        ("captions_val.json", b'{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}', "image id 1"),
        ("Flickr8k.token.txt", b"a.jpg a cat\n", r"name\.jpg#0<TAB>caption"),
        ("notes.txt", b"hello", "no captions found"),
    ],
)
def test_bad_caption_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    pictures(tmp_path, "a.jpg")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_such_folder_and_unknown_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data set"):
        read_dataset(tmp_path / "absent")
    (tmp_path / "x.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match="not a caption file"):
        read_dataset(tmp_path / "x.parquet")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared photos are not beside this checkout")
def test_shared_photo_sets_load() -> None:
    flickr = read_dataset(SHARED / "flickr8k")
    assert Counter(example.split for example in flickr) == {"train": 6000, "val": 1000}
    assert {len(example.captions) for example in flickr} == {5}
    for folder in sorted(SHARED.iterdir()):
        assert len(read_dataset(folder)) >= 1000
