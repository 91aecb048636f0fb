"""The rows of metadata: one for each source, the file itself before its sidecars."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from indexer.catalog import assets, metadata
from indexer.catalog.metadata import Said, Sidecar
from indexer.catalog.roots import Root, Target
from indexer.catalog.schema import assets as table
from indexer.decoding.metadata import Metadata
from tests.indexer.catalog.conftest import AddFile

OWN = Metadata(taken_at=datetime(2019, 7, 6, 5, 4, 3), camera="X100", title="A lake", keywords=("sea", "Ärger"))
BESIDE = Metadata(datetime(2001, 1, 1), "other", "23mm", 47.5, 8.25, None, "from the sidecar")
SIDECAR = Sidecar("album/a.jpg.json", 100, 200)


def shown(connection: Connection, asset_id: int) -> tuple[object, ...]:
    columns = (table.c.taken_at, table.c.camera, table.c.latitude_deg, table.c.longitude_deg)
    return tuple(connection.execute(select(*columns).where(table.c.id == asset_id)).one())


def test_pictures_are_asked_once(connection: Connection, add_file: AddFile, root: Root) -> None:
    target = Target(root, "", ())
    first, second = add_file("album/a.jpg"), add_file("b.jpg")
    add_file("c.txt", "text"), add_file("d.jpg", error="broken")
    assert metadata.unread(connection, target) == [(first, "album/a.jpg"), (second, "b.jpg")]
    assert metadata.unread(connection, Target(root, "album", ())) == [(first, "album/a.jpg")]
    metadata.record(connection, {first: OWN, second: Metadata()})
    assert metadata.unread(connection, target) == [], "a picture that says nothing was asked, too"
    assert shown(connection, first) == (OWN.taken_at, "X100", None, None)


def test_the_file_comes_before_its_sidecar_and_the_sidecar_fills_gaps(
    connection: Connection, add_file: AddFile, root: Root
) -> None:
    target = Target(root, "", ())
    photo = add_file("album/a.jpg")
    metadata.record(connection, {photo: OWN})
    metadata.write(connection, photo, BESIDE, SIDECAR)
    metadata.show(connection, target)
    assert shown(connection, photo) == (OWN.taken_at, "X100", 47.5, 8.25)
    (row,) = metadata.sidecars(connection, target)
    assert (row.asset_id, row.sidecar) == (photo, SIDECAR)
    metadata.forget_sidecar(connection, row)
    assert shown(connection, photo) == (OWN.taken_at, "X100", None, None)
    assert metadata.sidecars(connection, target) == []


def test_what_is_said_in_words_comes_back_as_it_was(connection: Connection, add_file: AddFile, root: Root) -> None:
    target = Target(root, "", ())
    photo, silent = add_file("album/a.jpg"), add_file("b.jpg")
    metadata.record(connection, {photo: OWN, silent: Metadata(camera="X100")})
    metadata.write(connection, photo, BESIDE, SIDECAR)
    assert list(metadata.with_words(connection, target)) == [
        Said(photo, "album/a.jpg", "album/a.jpg", OWN),
        Said(photo, "album/a.jpg", SIDECAR.rel_path, BESIDE),
    ]
    metadata.write(connection, photo, None, SIDECAR)
    assert [one.source for one in metadata.with_words(connection, target)] == ["album/a.jpg"]
    assets.mark(connection, [photo], missing=True)
    assert list(metadata.with_words(connection, target)) == []
