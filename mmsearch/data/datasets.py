"""Captioned pictures on disk, in the four layouts people have, as one list of examples.

In: a folder or a file: `captions.csv` (image, caption, optional split), Hugging Face `metadata.jsonl`, COCO captions
JSON, or Flickr token files. Out: `Example`s with their captions grouped in file order; pixels are not read here.
What would spoil a measurement is refused, not repaired: missing pictures, a picture in two splits. Empty captions are
dropped with a count. Next: `near_duplicates.py` looks for the same picture under two names, `training/corpus.py` joins
the data sets of a run, `evaluation/subject.py` takes one split.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsearch.errors import DataError

log = logging.getLogger(__name__)

DEFAULT_SPLIT = "train"  # of a file that names none
_SPLIT_NAMES = {"validation": "val", "valid": "val", "dev": "val", "training": "train", "testing": "test"}
_IMAGE_FOLDERS = ("images", "Images")
_FLICKR_FOLDERS = (*_IMAGE_FOLDERS, "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")
_TOKEN_ENDINGS = (".token.txt", ".token")
_TOKEN_LINE = re.compile(r"^(?P<image>\S.*)#\d+\t(?P<caption>.*)$")
_LAYOUTS = "captions.csv, metadata.jsonl, captions_*.json (COCO) or *.token.txt (Flickr8k)"


@dataclass(frozen=True)
class Example:
    """One picture, all its captions in file order, and the split it belongs to."""

    image: Path
    captions: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class _Row:
    """One caption as a file states it. `where` is for messages: file and line."""

    image: str
    caption: str
    split: str
    where: str


def read_dataset(path: Path, split: str | None = None) -> list[Example]:
    """Read the captioned pictures of a folder or file; the layout is recognised by the file names.

    Args:
        path: a folder holding one of the layouts, or the caption file itself.
        split: `train`, `val`, `test`, ... or None for all. `validation` and `dev` in files read as `val`.

    Raises:
        DataError: no known layout, unreadable captions or empty ones only, missing pictures, a picture in two splits,
            no example.
    """
    path = Path(path)
    wanted = None if split is None else _split_name(split)
    files = _caption_files(path)
    # Who has only COCO's val2017 pictures beside both caption files can still read that split.
    named = [file for file in files if wanted is not None and _split_in_name(file) == wanted]
    examples = [example for file in named or files for example in _read_file(file)]
    splits_of: dict[str, str] = {}
    for example in examples:  # across several caption files of one data set
        _keep_in_one(splits_of, str(example.image), example.split)
    chosen = [example for example in examples if wanted is None or example.split == wanted]
    if not chosen:
        splits = ", ".join(sorted({example.split for example in examples})) or "none"
        raise DataError(
            f"{path} has no examples in split '{wanted or 'any'}'; its splits: {splits}; "
            f"name '{wanted or DEFAULT_SPLIT}' for some of its pictures, as in a column 'split'"
        )
    return chosen


def _caption_files(path: Path) -> list[Path]:
    """The caption files that `path` stands for, by the first layout found."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"no such data set: {path}; give a folder with {_LAYOUTS}")
    layouts: list[tuple[str, ...]] = [
        ("captions.csv",),
        ("metadata.jsonl",),
        ("*/metadata.jsonl",),
        ("captions_*.json", "annotations/captions_*.json"),
        ("*.token.txt", "*.token", "Flickr8k_text/*.token.txt"),
    ]
    for patterns in layouts:
        files = sorted(file for pattern in patterns for file in path.glob(pattern) if file.is_file())
        if files:
            return [file for file in files if "lemma" not in file.name] or files
    raise DataError(f"no captions found in {path}; expected {_LAYOUTS}")


def _read_file(file: Path) -> list[Example]:
    here = file.parent
    try:
        if file.suffix == ".csv":
            rows, folders = list(_csv_rows(file)), [here / name for name in _IMAGE_FOLDERS] + [here]
        elif file.suffix == ".jsonl":
            rows, folders = list(_jsonl_rows(file)), [here] + [here / name for name in _IMAGE_FOLDERS]
        elif file.suffix == ".json":
            rows, folders = list(_coco_rows(file)), _coco_folders(file)
        elif file.name.endswith(_TOKEN_ENDINGS):
            rows = list(_token_rows(file))
            folders = [base / name for base in (here, here.parent) for name in _FLICKR_FOLDERS] + [here]
        else:
            raise DataError(f"{file} is not a caption file that is known here; expected {_LAYOUTS}")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{file} is not a CSV file: {error}; save it as comma-separated UTF-8") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; check the path and its permissions") from error
    if not rows:
        raise DataError(f"{file} holds no captions; expected one line or entry for each caption")
    return _group(file, rows, folders)


def _group(file: Path, rows: Sequence[_Row], folders: Sequence[Path]) -> list[Example]:
    """Rows -> one Example for each picture, in order of first appearance, every picture checked to exist."""
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    empty: list[_Row] = []
    for row in rows:
        if not row.image:
            raise DataError(f"{row.where}: no image named; every caption needs its picture's file name")
        if not row.caption.strip():
            empty.append(row)
            continue
        _keep_in_one(splits, row.image, row.split, f"{row.where}: ")
        captions.setdefault(row.image, []).append(row.caption.strip())
    if empty:
        _tell_empty(file, rows, empty, captions)
    present = [folder for folder in folders if folder.is_dir()]
    found = {name: next((f / name for f in present if (f / name).is_file()), None) for name in captions}
    missing = [name for name, image in found.items() if image is None]
    if missing:
        looked = ", ".join(str(folder) for folder in present)
        raise DataError(
            f"{file} names {len(missing)} of {len(captions)} images that are missing, first {missing[0]}; "
            f"looked in {looked}: put them there or remove their captions"
        )
    return [Example(image, tuple(captions[name]), splits[name]) for name, image in found.items() if image is not None]


def _tell_empty(file: Path, rows: Sequence[_Row], empty: Sequence[_Row], captions: Mapping[str, object]) -> None:
    """Say how many captions are dropped for being empty; refuse a file that has no others."""
    if not captions:
        raise DataError(f"{file} holds {len(empty)} captions and all are empty; write some, in the form of {_LAYOUTS}")
    bare = {row.image for row in empty} - captions.keys()
    pictures = f", and with them {len(bare)} pictures that have no other" if bare else ""
    log.warning("%s: %d of %d captions are empty and dropped, the first for %s at %s%s",
                file, len(empty), len(rows), empty[0].image, empty[0].where, pictures)  # fmt: skip


def _keep_in_one(splits: dict[str, str], image: str, split: str, where: str = "") -> None:
    """Note the split of a picture; a second one is refused."""
    if splits.setdefault(image, split) != split:
        raise DataError(f"{where}{image} is in two splits, '{splits[image]}' and '{split}'; keep it in one")


def same_name(label: str) -> str:
    """What two spellings of a name have in common: `Snow_Leopard` and `snow  leopard`."""
    return " ".join(label.lower().replace("_", " ").split())


def read_names(file: Path) -> set[str]:
    """The names in a file, one a line, each as `same_name` has it.

    Raises:
        DataError: a file that cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8, one name a line") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; give a file of names, one a line") from error
    return {same_name(line) for line in lines if line.strip()}


def _csv_rows(file: Path) -> Iterator[_Row]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        absent = [name for name in ("image", "caption") if name not in columns]
        if absent:
            raise DataError(f"{file} has columns {columns}, lacks {absent}; start it with image,caption[,split]")
        for row in reader:
            split = row.get("split") or DEFAULT_SPLIT
            where = f"{file}:{reader.line_num}"
            yield _Row((row["image"] or "").strip(), row["caption"] or "", _split_name(split), where)


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, each with its place for messages."""
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            yield f"{file}:{number}", line


def _jsonl_rows(file: Path) -> Iterator[_Row]:
    """Hugging Face `imagefolder`: one JSON object a line; the split is the field `split` or the folder's name."""
    default = _split_in_name(file) or DEFAULT_SPLIT
    for where, line in _lines(file):
        entry = _json(line, where)
        value = next((entry[key] for key in ("text", "caption", "captions") if key in entry), None)
        if "file_name" not in entry or value is None:
            raise DataError(f"{where}: expected file_name and text, caption or captions; found {sorted(entry)}")
        split = _split_name(str(entry.get("split") or default))
        texts = value if isinstance(value, list) else [value]
        for text in texts or [""]:
            yield _Row(str(entry["file_name"]), str(text or ""), split, where)


def _coco_rows(file: Path) -> Iterator[_Row]:
    """COCO captions: `images` [{id, file_name}], `annotations` [{image_id, caption}]; the split is in its name."""
    content = _json(file.read_text(encoding="utf-8-sig"), str(file))
    try:
        names = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        pairs = [(entry["image_id"], str(entry["caption"] or "")) for entry in content["annotations"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} is not COCO captions ({error!r}); expected images and annotations") from error
    split = _split_in_name(file) or DEFAULT_SPLIT
    for number, (image_id, caption) in enumerate(pairs):
        if image_id not in names:
            raise DataError(f"{file}: annotation {number} names image id {image_id}, which is not in its images")
        yield _Row(names[image_id], caption, split, f"{file}, annotation {number}")


def _coco_folders(file: Path) -> list[Path]:
    stem = file.stem.removeprefix("captions_")  # captions_val2017.json -> val2017
    bases = [file.parent, file.parent.parent] if file.parent.name == "annotations" else [file.parent]
    return [base / name for base in bases for name in (stem, file.stem, *_IMAGE_FOLDERS)] + [file.parent]


def _token_rows(file: Path) -> Iterator[_Row]:
    """Flickr8k and Flickr30k: `name.jpg#0<TAB>caption`. With split lists beside it, pictures in none are left out."""
    splits = _flickr_splits(file.parent)
    for where, line in _lines(file):
        match = _TOKEN_LINE.match(line.rstrip("\r"))
        if match is None:
            raise DataError(f"{where}: expected name.jpg#0<TAB>caption, found {line[:60]!r}")
        image = match["image"]
        if not splits or image in splits:
            yield _Row(image, match["caption"], splits.get(image, DEFAULT_SPLIT), where)


def _flickr_splits(folder: Path) -> dict[str, str]:
    """`Flickr_8k.trainImages.txt`, `.devImages.txt`, `.testImages.txt` -> split of each picture."""
    splits: dict[str, str] = {}
    for listing in sorted(folder.glob("*Images.txt")):
        match = re.search(r"(train|dev|val|test)Images\.txt$", listing.name)
        if match is None:
            continue
        split = _split_name(match.group(1))
        for name in listing.read_text(encoding="utf-8-sig").split():
            _keep_in_one(splits, name, split, f"{listing}: ")
    return splits


def _split_in_name(file: Path) -> str | None:
    """captions_val2017.json -> val; validation/metadata.jsonl -> val; None where the name says nothing."""
    if file.suffix == ".json":
        match = re.search(r"train|val|test", file.stem)
        return match.group() if match else None
    split = _split_name(file.parent.name)
    return split if file.suffix == ".jsonl" and split in {"train", "val", "test"} else None


def _split_name(name: str) -> str:
    name = name.strip().lower()
    return _SPLIT_NAMES.get(name, name)


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); is the file whole?") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value
