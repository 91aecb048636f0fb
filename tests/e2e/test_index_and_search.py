"""The main task from the command line: index a folder; find pictures and texts by words, by a picture, by both."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mmsearch import Library
from mmsearch.cli import app as cli
from tests.e2e.conftest import Run
from tests.e2e.runner import load_fake
from tests.fakes import FakeEncoder, paint


def test_index_then_search_then_similar(run: Run, photos: Path) -> None:
    first = run("index", photos, "--json")
    assert first.code == 0
    report = json.loads(first.out)
    counts = {"added", "updated", "moved", "unchanged", "skipped", "postponed", "offline", "excluded", "encoded"}
    assert set(report) == {*counts, "seconds"}
    assert report["added"] == 6
    assert report["skipped"] == 0

    found = run("search", "red", "--json")
    assert found.code == 0
    answer = json.loads(found.out)
    assert answer["query"] == "red"
    assert answer["hits"][0]["path"] == str(photos / "red.png")
    assert answer["hits"][0]["modality"] == "image"
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, len(answer["hits"]) + 1))
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert all(-1.001 <= score <= 1.001 for score in scores)

    alike = run("similar", photos / "blue.png", "--json", "--in", "text")
    assert alike.code == 0
    hits = json.loads(alike.out)["hits"]
    assert {hit["modality"] for hit in hits} == {"text"}
    assert hits[0]["text"] == "blue blue whale"


def test_an_unquoted_query_is_one_query(run: Run, photos: Path) -> None:
    run("index", photos)
    assert json.loads(run("search", "blue", "blue", "whale", "--json").out)["query"] == "blue blue whale"


def test_the_second_index_changes_nothing(run: Run, photos: Path) -> None:
    run("index", photos)
    report = json.loads(run("index", photos, "--json").out)
    assert (report["added"], report["updated"], report["encoded"], report["unchanged"]) == (0, 0, 0, 6)


def test_a_profile_where_it_is_asked_for(run: Run, photos: Path) -> None:
    asked = run("index", photos, "--profile", "--json")
    stages = json.loads(asked.out)["profile"]["stages"]
    assert (stages["decode"]["items"], stages["encode"]["items"], stages["index_file"]["items"]) == (6, 6, 6)
    assert "mmsearch: limit: " in asked.err
    assert "index file" in asked.err
    plain = run("index", photos)
    assert "unchanged" in plain.out
    assert plain.err == ""


def test_k_paths_and_nul(run: Run, photos: Path) -> None:
    run("index", photos)
    assert run("search", "red", "-k", "1", "--paths").out == f"{photos / 'red.png'}\n"
    two = run("search", "red", "-k", "2", "-0").out
    assert two.endswith("\0")
    assert len(two.split("\0")) == 3
    table = run("search", "red", "-k", "3").out.splitlines()
    assert len(table) == 3
    assert table[0].split()[0] == "1"


def test_in_image_and_in_text_find_only_those(run: Run, photos: Path) -> None:
    run("index", photos)
    for modality in ("image", "text"):
        hits = json.loads(run("search", "green", "--in", modality, "--json", "-k", "50").out)["hits"]
        assert hits
        assert {hit["modality"] for hit in hits} == {modality}


def test_a_picture_alone_and_with_words(run: Run, photos: Path, tmp_path: Path) -> None:
    run("index", photos)
    other = paint(tmp_path / "elsewhere" / "red.jpg", "red", seed=9)
    alone = json.loads(run("search", "--image", other, "--json").out)
    assert alone["hits"][0]["path"] == str(photos / "red.png")
    assert alone["image"] == str(other)
    both = json.loads(run("search", "blue", "--image", other, "--json").out)
    by_path = {hit["path"]: hit["score"] for hit in both["hits"]}
    alone_by_path = {hit["path"]: hit["score"] for hit in alone["hits"]}
    assert by_path[str(photos / "blue.png")] > alone_by_path[str(photos / "blue.png")]


def test_a_file_is_not_among_the_files_like_it(run: Run, photos: Path, tmp_path: Path) -> None:
    run("index", photos)
    hits = json.loads(run("similar", photos / "red.png", "--json", "-k", "50").out)["hits"]
    assert hits
    assert str(photos / "red.png") not in [hit["path"] for hit in hits]
    other = paint(tmp_path / "elsewhere" / "red.jpg", "red", seed=9)
    hits = json.loads(run("similar", other, "--json").out)["hits"]
    assert hits[0]["path"] == str(photos / "red.png")
    note = tmp_path / "elsewhere" / "note.txt"
    note.write_text("yellow", encoding="utf-8")
    assert run("similar", note, "-k", "1", "--paths").out == f"{photos / 'trip' / 'yellow.jpg'}\n"


def test_a_file_asked_for_by_another_name_is_not_among_the_files_like_it(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to(photos)
    run("index", link)
    monkeypatch.chdir(photos)
    for name in (link / "red.png", photos / "red.png", Path("red.png"), Path("trip/../red.png")):
        hits = json.loads(run("similar", name, "--json", "-k", "50").out)["hits"]
        assert len(hits) >= 4, name
        assert not [hit for hit in hits if hit["path"].endswith("red.png")]


def test_a_caption_is_found_among_texts_and_its_photo_once_among_all(run: Run, photos: Path) -> None:
    (photos / "captions.csv").write_text("image,caption\nred.png,a red rose\nred.png,petals\n", encoding="utf-8")
    run("index", photos)
    everything = json.loads(run("search", "red rose", "--json", "-k", "50").out)["hits"]
    assert [hit["path"] for hit in everything].count(str(photos / "red.png")) == 1
    texts = json.loads(run("similar", photos / "red.png", "--in", "text", "--json", "-k", "50").out)["hits"]
    assert texts[0]["text"] == "a red rose"
    assert texts[0]["path"] == str(photos / "red.png")
    assert {hit["text"] for hit in texts} == {"a red rose", "petals", "a green garden", "blue blue whale"}


def test_status_errors_and_a_similar_of_an_indexed_file_never_load_the_model(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", photos)

    def refuse(name: str, device: str) -> FakeEncoder:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("mmsearch.model_choice.load_encoder", refuse)
    assert run("status").code == 0
    assert run("errors").code == 0
    assert run("similar", photos / "red.png").code == 0
    assert run("search", "red").code == 2


def test_status_counts_and_names_the_model(run: Run, photos: Path) -> None:
    run("index", photos)
    status = json.loads(run("status", "--json").out)
    assert (status["images"], status["model_name"]) == (4, "default")
    assert [root["path"] for root in status["roots"]] == [str(photos)]
    assert "default" in run("status").out


def test_option_and_variable_choose_the_library(run: Run, photos: Path, tmp_path: Path, home: Path) -> None:
    run("index", photos, "--library", tmp_path / "mine")
    assert run("search", "red").code == 1
    assert run("search", "red", "--library", tmp_path / "mine").code == 0
    assert not (home / "library").exists()
    run("index", photos)
    assert (home / "library").is_dir()
    assert run("search", "red").code == 0


def test_the_configuration_sets_the_defaults(run: Run, photos: Path, home: Path) -> None:
    (home / "config.toml").write_text('model = "other"\nk = 2\n', encoding="utf-8")
    run("index", photos)
    assert json.loads(run("status", "--json").out)["model_name"] == "other"
    assert len(run("search", "red", "--paths").out.splitlines()) == 2
    assert len(run("search", "red", "--paths", "-k", "3").out.splitlines()) == 3


def test_a_library_goes_on_with_the_model_it_was_written_with_until_it_is_rebuilt(run: Run, photos: Path) -> None:
    run("index", photos, "--model", "other")
    assert run("search", "red").code == 0
    assert run("index", photos).code == 0
    assert run("search", "red", "--model", "default").code == 2
    assert run("rebuild", "--model", "default").code == 0
    assert json.loads(run("status", "--json").out)["model_name"] == "default"
    assert run("search", "red", "-k", "1", "--paths").out == f"{photos / 'red.png'}\n"


def test_a_name_that_is_not_utf8_is_indexed_found_and_printed_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    odd = os.fsencode(paint(folder / "x.png", "red")).replace(b"x.png", b"caf\xe9.png")
    os.rename(folder / "x.png", odd)
    monkeypatch.setattr("mmsearch.model_choice.load_encoder", load_fake)

    assert cli.main(["index", str(folder)]) == 0
    for style in ("--paths", "-0", "--json", "--in=image"):
        capfdbinary.readouterr()
        assert cli.main(["search", "red", style]) == 0
        out = capfdbinary.readouterr().out
        if style == "--json":
            assert os.fsencode(json.loads(out)["hits"][0]["path"]) == odd
        else:
            assert odd in out
    assert cli.main(["search", os.fsdecode(b"caf\xe9")]) == 0
    assert cli.main(["similar", os.fsdecode(odd)]) == 1


def test_the_same_from_python(photos: Path, tmp_path: Path) -> None:
    encoder = FakeEncoder()
    with Library.open(tmp_path / "mine", model=encoder) as library:
        assert library.index(photos).added == 6
        hits = library.search("red", k=2)
        assert [hit.rank for hit in hits] == [1, 2]
        assert hits[0].path == photos / "red.png"
        assert hits[0].modality == "image"
        before = encoder.encoded
        assert library.similar(photos / "red.png", k=3, within="image")
        assert encoder.encoded == before
        assert library.status().images == 4
        assert library.errors() == []
