"""Names with accents, typed one way and on the disk the other: one file is one entry, and keeps its bytes."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

from indexer.files.excludes import Excludes
from indexer.files.unicode_names import as_on_disk, by_spelling, nfc
from indexer.search.filters import Filters
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.ingest.samples import TAKEOUT, rows, said

WAYS = ("NFC", "NFD")
pytestmark = pytest.mark.parametrize(("disk", "typed"), [WAYS, WAYS[::-1]])


def spelt(text: str, way: str) -> str:
    return unicodedata.normalize(way, text)  # type: ignore[arg-type]


def listed(store: Store) -> list[str]:
    return sorted(
        row[0] if isinstance(row[0], str) else os.fsdecode(row[0]) for row in rows(store, "SELECT rel_path FROM assets")
    )


def test_captions_csv(store: Store, encoder: FakeEncoder, photos: Path, disk: str, typed: str) -> None:
    name = spelt("été à Évry.jpg", disk)
    paint(photos / name, seed=1)
    paint(photos / spelt("dossier é", disk) / name, seed=2)
    lines = [
        "image,caption",
        f"{spelt('été à Évry.jpg', typed)},a picnic",
        f"{spelt('dossier é/été à Évry.jpg', typed)},a swim",
    ]
    (photos / "captions.csv").write_text("\n".join(lines), encoding="utf-8")
    assert store.ingest(photos, encoder).skipped == 0, store.errors()
    assert sorted(said(store, encoder)) == [(name, "a picnic"), (name, "a swim")]
    assert listed(store) == sorted([name, f"{spelt('dossier é', disk)}/{name}"])
    assert store.ingest(photos, encoder).encoded == 0


def test_a_text_beside_a_photo(store: Store, encoder: FakeEncoder, photos: Path, disk: str, typed: str) -> None:
    paint(photos / f"{spelt('Müller', disk)}.jpg", seed=1)
    (photos / f"{spelt('Müller', typed)}.txt").write_text("a man with a hat", encoding="utf-8")
    store.ingest(photos, encoder)
    assert rows(store, "SELECT count(*) FROM captions WHERE live") == [(1,)]
    assert {os.fsencode(one) for one in listed(store)} == {os.fsencode(one) for one in os.listdir(photos)}
    assert store.ingest(photos, encoder).encoded == 0


@pytest.mark.parametrize("tail", [".json", ".supplemental-metadata.json", ".supplemental-meta.json"])
def test_takeout(store: Store, encoder: FakeEncoder, photos: Path, disk: str, typed: str, tail: str) -> None:
    name = spelt("Ängelholm.jpg", disk)
    paint(photos / name, seed=1)
    (photos / f"{spelt('Ängelholm.jpg', typed)}{tail}").write_text(json.dumps(TAKEOUT), encoding="utf-8")
    store.ingest(photos, encoder)
    assert ("a blue whale" in {text for _, text in said(store, encoder)}) is True
    assert rows(store, "SELECT count(*) FROM about WHERE source IS NOT NULL") == [(1,)]


def test_excludes(store: Store, encoder: FakeEncoder, photos: Path, disk: str, typed: str) -> None:
    paint(photos / spelt("privé", disk) / "a.png", seed=1)
    paint(photos / spelt("été.png", disk), seed=2)
    paint(photos / "b.png", seed=3)
    (photos / ".mmsearchignore").write_text(spelt("privé/\n", typed), encoding="utf-8")
    store.ingest(photos, encoder, excludes=Excludes((spelt("ét?.png", typed),)))
    assert listed(store) == ["b.png"]


def test_prune_and_index_of_a_part(store: Store, encoder: FakeEncoder, photos: Path, disk: str, typed: str) -> None:
    folder = photos / spelt("fêtes", disk)
    for number, name in enumerate(("a.png", "b.png")):
        paint(folder / name, seed=number)
    paint(photos / "c.png", seed=7)
    store.ingest(photos, encoder)
    asked = photos / spelt("fêtes", typed)
    query = encoder.embed_texts(["red"]).mu[0]
    found = store.search(query, 9, fingerprint=encoder.fingerprint, filters=Filters(asked))
    assert sorted(hit.path for hit in found) == [folder / "a.png", folder / "b.png"]
    (folder / "a.png").unlink()
    (photos / "c.png").unlink()
    assert store.ingest(asked, encoder).added == 0  # the part, and no second root of it
    assert rows(store, "SELECT count(*) FROM roots") == [(1,)]
    assert store.prune(asked, dry_run=True).paths == (folder / "a.png",)
    assert store.prune(asked).removed == 1
    assert listed(store) == ["c.png", f"{folder.name}/b.png"]


def test_a_root(store: Store, encoder: FakeEncoder, tmp_path: Path, disk: str, typed: str) -> None:
    """Indexed by one spelling, then by the other; away, moved, pruned."""
    folder, asked = tmp_path / spelt("Björk", disk), tmp_path / spelt("Björk", typed)
    paint(folder / "a.png", seed=1)
    store.ingest(folder, encoder)
    assert store.ingest(asked, encoder).unchanged == 1
    assert rows(store, "SELECT count(*) FROM roots") == [(1,)]
    away = folder.rename(tmp_path / spelt("naïve", disk))
    assert store.is_offline(asked)
    assert store.ingest(asked, encoder).offline == 1
    assert store.relocate(asked, tmp_path / spelt("naïve", typed)) == 1
    assert [root.path for root in store.status().roots] == [away]
    assert store.asset_id_of(tmp_path / spelt("naïve", typed) / "a.png") is not None
    assert encoder.encoded == 1


def test_a_file_that_comes_back_in_the_other_spelling(
    store: Store, encoder: FakeEncoder, photos: Path, disk: str, typed: str
) -> None:
    first = paint(photos / spelt("café.png", disk), seed=1)
    store.ingest(photos, encoder)
    first.rename(photos / spelt("café.png", typed))
    report = store.ingest(photos, encoder)
    assert (report.moved + report.unchanged, report.added, encoder.encoded) == (1, 0, 1)
    assert listed(store) == [spelt("café.png", typed)]


def test_two_files_are_two(store: Store, encoder: FakeEncoder, photos: Path, disk: str, typed: str) -> None:
    """On a disk that tells them apart: the exact name is meant, and where there is none, neither."""
    for number, way in enumerate(WAYS):
        paint(photos / f"{spelt('café', way)}.png", seed=number)
    if len(os.listdir(photos)) != 2:
        pytest.skip("this disk takes both spellings for one name")
    (photos / "captions.csv").write_text(f"image,caption\n{spelt('café', typed)}.png,a bar\n", encoding="utf-8")
    store.ingest(photos, encoder)
    assert said(store, encoder) == [(f"{spelt('café', typed)}.png", "a bar")]
    names = os.listdir(photos)
    assert by_spelling(name for name in names if name.endswith(".png")) == {}
    assert as_on_disk(photos / f"{spelt('café', disk)}.png").name == f"{spelt('café', disk)}.png"
    assert nfc(spelt("café", disk)) == nfc(spelt("café", typed))
