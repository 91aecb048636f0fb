"""What is excluded, which pattern has precedence, and what happens to files excluded after they were indexed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import BinaryIO

import pytest

from indexer.files.excludes import Excludes, compiled, is_excluded_by_default
from indexer.files.scan import scan
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.files.test_scan import paths, reasons, touch


def ignore(folder: Path, *lines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".mmsearchignore").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir",
        "$RECYCLE.BIN",
        "node_modules",
        "__pycache__",
        ".git",
        ".thumbnails",
        ".Trash-1000",
        "x Previews.lrdata",
    ],
)
def test_caches_and_bins_are_passed_over(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"{name}/a.jpg", f"deep/{name}/a.jpg", "a.jpg")
    assert is_excluded_by_default(name)
    assert paths(scan(tmp_path)) == ["a.jpg"]


def test_the_rules_of_gitignore(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.gif",
        "keep.gif",
        "raw/x.jpg",
        "d/raw/y.jpg",
        "top.jpg",
        "d/top.jpg",
        "d/e/f/z.jpg",
        "#1.jpg",
        "s .txt",
    )
    ignore(tmp_path, "# a comment", "", "*.gif", "!keep.gif", "raw/", "/top.jpg", "d/**/z.jpg", r"\#1.jpg")
    assert paths(scan(tmp_path)) == ["d/top.jpg", "keep.gif", "s .txt"]


def test_the_nearest_file_decides_and_is_relative_to_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "a/b/x.jpg", "a/b/y.jpg", "x.jpg", "a/c/x.jpg")
    ignore(tmp_path, "x.jpg")
    ignore(tmp_path / "a" / "b", "!x.jpg", "/y.jpg")
    ignore(tmp_path / "a" / "c", "y.jpg")
    assert paths(scan(tmp_path)) == ["a/b/x.jpg"]
    assert paths(scan(tmp_path, "a/b")) == ["a/b/x.jpg"]
    assert paths(scan(tmp_path, "a/c")) == []


def test_defaults_can_be_taken_in_again(tmp_path: Path) -> None:
    touch(tmp_path, ".scans/a.jpg", ".other/a.jpg", "node_modules/a.png", ".scans/.deep/a.jpg")
    ignore(tmp_path, "!/.scans/", "!node_modules/")
    assert paths(scan(tmp_path)) == [".scans/a.jpg", "node_modules/a.png"]


def test_everything_in_a_folder_but_one(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "a/keep/y.jpg", "a/keep/no.gif", "b/z.jpg")
    ignore(tmp_path, "*.gif", "a/**", "!a/keep/", "!a/keep/*.jpg")
    assert paths(scan(tmp_path)) == ["a/keep/y.jpg", "b/z.jpg"]
    ignore(tmp_path, "*", "!b/", "!z.jpg")
    assert paths(scan(tmp_path)) == ["b/z.jpg"]


def test_whose_word_counts(tmp_path: Path) -> None:
    touch(tmp_path, "a.gif", "b.gif", "c.bmp", "sub/a.gif")
    ignore(tmp_path, "!a.gif")
    assert paths(scan(tmp_path, excludes=Excludes(always=("*.gif",)))) == ["a.gif", "c.bmp", "sub/a.gif"]
    assert paths(scan(tmp_path, excludes=Excludes(given=("*.gif",)))) == ["c.bmp"]
    assert paths(scan(tmp_path, excludes=Excludes(("!b.gif", "/a.gif"), ("*.gif",)))) == ["b.gif", "c.bmp", "sub/a.gif"]
    assert paths(scan(tmp_path, "sub", excludes=Excludes(given=("/a.gif",)))) == []


def test_a_named_folder_that_is_excluded_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "private/a/x.jpg", ".hidden/x.jpg")
    ignore(tmp_path, "private/")
    for prefix, name in (("private/a", "private"), (".hidden", ".hidden")):
        with caplog.at_level(logging.WARNING):
            assert paths(scan(tmp_path, prefix)) == []
        assert f"'!{name}/' in {tmp_path}/.mmsearchignore" in caplog.text
    ignore(tmp_path, "!.hidden/")
    assert paths(scan(tmp_path, ".hidden")) == [".hidden/x.jpg"]


def test_links_are_excluded_by_their_own_name(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(outside, "x.jpg")
    ignore(outside, "y.jpg")
    touch(outside, "y.jpg")
    touch(root, "z.jpg")
    (root / "far").symlink_to(outside)
    (root / "gone.jpg").symlink_to(root / "nothing")
    assert paths(scan(root, follow_links=True)) == ["far/x.jpg", "z.jpg"]
    ignore(root, "far/", "gone.jpg")
    result = scan(root)
    assert (paths(result), reasons(result)) == (["z.jpg"], {})


def test_a_link_to_any_folder_above_is_a_loop(tmp_path: Path) -> None:
    root = tmp_path / "a" / "root"
    touch(tmp_path, "beside.jpg", "a/root/x.jpg")
    (root / "up").symlink_to(tmp_path)
    (root / "slash").symlink_to("/")
    result = scan(root)
    assert paths(result) == ["x.jpg"]
    assert set(reasons(result)) == {"up", "slash"}


def test_lines_that_are_no_patterns_are_recorded_and_the_others_count(tmp_path: Path) -> None:
    touch(tmp_path, "d/a.gif", "d/b.jpg", "c.gif")
    ignore(tmp_path / "d", "!", "*.gif")
    result = scan(tmp_path)
    assert paths(result) == ["c.gif", "d/b.jpg"]
    assert reasons(result) == {"d/.mmsearchignore": "line 1 is no pattern: '!'"}
    (tmp_path / "d" / ".mmsearchignore").write_bytes(b"\xef\xbb\xbf*.gif\r\ncaf\xe9.jpg\r\n")
    assert paths(scan(tmp_path)) == ["c.gif", "d/b.jpg"]
    with pytest.raises(ValueError, match=r"'!' is no pattern; .*gitignore"):
        compiled(["*.gif", "!"])


def test_a_mmsearchignore_that_cannot_be_read_changes_nothing(
    store: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is something private taken in, nor is what was indexed hidden."""
    paint(photos / "d" / "a.png", "red", seed=1)
    paint(photos / "b.png", "blue", seed=2)
    store.ingest(photos, encoder)
    ignore(photos / "d", "*.gif")
    paint(photos / "d" / "private.png", "red", seed=3)

    def refuse(file: BinaryIO) -> object:
        raise PermissionError(13, "Permission denied", file.name)

    with monkeypatch.context() as patch:
        patch.setattr("indexer.files.scan.read_ignore", refuse)
        report = store.ingest(photos, encoder)
    assert (report.unchanged, report.added, report.skipped) == (1, 0, 1)
    assert (store.status().images, store.status().missing) == (2, 0)
    assert [error.reason for error in store.errors()] == [".mmsearchignore cannot be read (Permission denied)"]


def test_what_is_excluded_later_hides_returns_unread_and_goes_when_asked(
    store: Store, photos: Path, encoder: FakeEncoder
) -> None:
    paint(photos / "private" / "a.png", "red", seed=1)
    (photos / "private" / "a.txt").write_text("red secret")
    (photos / "private" / "captions.csv").write_text("image,caption\na.png,a red secret\n")
    paint(photos / "b.png", "blue", seed=2)
    store.ingest(photos, encoder)
    encoded = encoder.encoded
    query = FakeEncoder().embed_texts(["red"]).mu[0]

    def found() -> list[str]:
        hits = [*store.search(query, 9, fingerprint=encoder.fingerprint)]
        hits += store.search(query, 9, fingerprint=encoder.fingerprint, within="text")
        return [hit.path.name for hit in hits]

    before = found()
    assert len(before) == 4  # two photos, two captions
    ignore(photos, "private")
    assert store.ingest(photos, encoder).excluded == 2
    assert store.ingest(photos, encoder).excluded == 0  # it is no news any more
    assert found() == ["b.png"]
    assert (store.status().missing, store.status().captions) == (2, 0)
    assert store.prune().removed == 0
    (photos / ".mmsearchignore").unlink()
    assert store.ingest(photos, encoder).unchanged == 3
    assert found() == before
    assert encoder.encoded == encoded
    store.ingest(photos, encoder, excludes=Excludes(given=("private",)))
    assert found() == ["b.png"]
    assert store.prune(excluded=True).removed == 2
    assert (photos / "private" / "a.png").exists()
    store.ingest(photos, encoder)
    assert encoder.encoded == 2 * encoded - 1


def test_what_is_gone_is_not_counted_as_excluded(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    for number, name in enumerate(("raw/deep/a.png", "raw/b.png", "c.gif", "d.png", "e.png")):
        paint(photos / name, "red", seed=number)
    store.ingest(photos, encoder)
    (photos / "raw" / "b.png").unlink()  # it would be excluded if it were there: nobody can tell
    (photos / "d.png").unlink()
    report = store.ingest(photos, encoder, excludes=Excludes(("raw/deep/", "*.gif")))
    assert (report.excluded, report.unchanged, store.status().missing) == (2, 1, 4)
    part = store.ingest(photos / "raw" / "deep", encoder)
    assert (part.excluded, part.unchanged) == (0, 1)
    (photos / ".mmsearchignore").write_text("raw/\n")
    report = store.ingest(photos / "raw" / "deep", encoder)  # the folder that was named is itself excluded
    assert (report.excluded, report.unchanged) == (1, 0)


def test_a_link_that_is_excluded_hides_what_it_led_to(
    store: Store, photos: Path, encoder: FakeEncoder, tmp_path: Path
) -> None:
    paint(tmp_path / "far" / "a.png", "red")
    paint(photos / "b.png", "blue")
    (photos / "link").symlink_to(tmp_path / "far")
    store.name(photos, follow_links=True)
    assert store.ingest(photos, encoder).added == 2
    assert store.ingest(photos, encoder, excludes=Excludes(("link/",))).excluded == 1
