"""What somebody may do to a library, an archive or a folder before giving it away: one small function each.

In: a `Stage` that was reset. Out: the same stage, hostile. `EDITS` has them by name. Next: `../e2e/test_attacks.py`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.attacks.stage import MARKER, Stage

Edit = Callable[[Stage], None]
EDITS: dict[str, Edit] = {}
NASTY: Final = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u2028"


def attack(name: str) -> Callable[[Edit], Edit]:
    """Note an edit under a name."""

    def noted(edit: Edit) -> Edit:
        assert name not in EDITS
        EDITS[name] = edit
        return edit

    return noted


def sql(stage: Stage, *statements: str, values: tuple[object, ...] = ()) -> None:
    """Change the catalog as its giver may: no trigger of ours and no key of another table is in the way."""
    with closing(sqlite3.connect(stage.catalog, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("PRAGMA synchronous = OFF")
        for statement in statements:
            connection.execute(statement, values if "?" in statement else ())
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


# Names in rows


def _cell(name: str, statement: str, value: Callable[[Stage], object]) -> None:
    @attack(name)
    def edit(stage: Stage) -> None:
        sql(stage, statement, values=(value(stage),))


for _what, _name in {
    "above": lambda stage: "../../../outside/index-7.f16",
    "absolute": lambda stage: str(stage.outside / "index-7.f16"),
    "a device": lambda stage: "/dev/zero",
    "empty": lambda stage: "",
    "of the catalog": lambda stage: "../catalog.sqlite",
    "nasty": lambda stage: f"index-{NASTY}",
}.items():
    _cell(f"index file named {_what}", "UPDATE generations SET file_name = ?", _name)
for _what, _path in {
    "above": lambda stage: b"../outside/private/secret.png",
    "absolute": lambda stage: os.fsencode(stage.outside / "private" / "secret.png"),
    "a device": lambda stage: b"/dev/zero",
    "a device below": lambda stage: b"../../../../../../../../../../dev/zero",
    "with NUL": lambda stage: b"a\0b.png",
    "the root": lambda stage: b".",
}.items():
    _cell(
        f"picture {_what}",
        "UPDATE assets SET rel_path = ? WHERE id = (SELECT min(id) FROM assets WHERE error IS NULL)",
        _path,
    )
for _what, _root in {
    "private": lambda stage: os.fsencode(stage.outside / "private"),
    "the whole disk": lambda stage: b"/",
    "devices": lambda stage: b"/dev",
    "relative": lambda stage: b"../outside/private",
    "nasty": lambda stage: b"/\x1b[2J\x9b\xe2\x80\xae",
    "a number": lambda stage: 3_000_000_000,
    "nothing": lambda stage: b"",
}.items():
    _cell(f"root {_what}", "UPDATE roots SET path = ?", _root)
for _what, _model in {
    "a folder with code": lambda stage: str(stage.case / "given" / "model"),
    "a hub name": lambda stage: "somebody/some-model",
    "a known hub name": lambda stage: "clip-ViT-B-32",
    "a device": lambda stage: "/dev/zero",
    "a pipe": lambda stage: str(stage.case / "given" / "pipe"),
    "nasty": lambda stage: NASTY,
}.items():
    _cell(f"model named {_what}", "UPDATE models SET name = ?, fingerprint = 'f' || fingerprint", _model)
_cell("the highest change", "UPDATE library SET change = ?", lambda stage: 2**63 - 1)
_cell("vectors that are no numbers", "UPDATE vectors SET mu = ?", lambda stage: b"\x00\x7e" * 16)
_cell("a vector of many bytes", "UPDATE vectors SET mu = zeroblob(?) WHERE id = 1", lambda stage: 40 << 20)
_cell(
    "a text of many bytes", "UPDATE captions SET text = CAST(zeroblob(?) AS TEXT) WHERE id = 1", lambda stage: 40 << 20
)
_cell("reasons that speak to the terminal", "UPDATE assets SET error = ?, excerpt = 'x'", lambda stage: NASTY)
_cell("facts nested deeply", "UPDATE generations SET facts = ?", lambda stage: "[" * 100_000)
_cell("keywords nested deeply", "UPDATE about SET keywords = ?", lambda stage: "[" * 100_000)
_cell("a version that speaks", "UPDATE alembic_version SET version_num = ?", lambda stage: NASTY)


# Objects in the schema


def _objects(name: str, *statements: str) -> None:
    @attack(name)
    def edit(stage: Stage) -> None:
        sql(stage, *statements)


ENDLESS: Final = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r)"
for _table in ("models", "roots", "library", "assets", "alembic_version"):
    _objects(
        f"an endless view in the place of {_table}",
        f"ALTER TABLE {_table} RENAME TO real_{_table}",
        f"CREATE VIEW {_table} AS SELECT * FROM real_{_table} WHERE ({ENDLESS} SELECT count(*) FROM r) > 0",
    )
_objects(
    "a trigger that fills the disk",
    "CREATE TRIGGER fills AFTER UPDATE ON library BEGIN INSERT INTO notices (root_id, rel_path, source, reason, "
    f"noticed_at) {ENDLESS} SELECT 1, x, 'scan', zeroblob(100000), '2026-01-01' FROM r LIMIT 100000000; END",
)
_objects(
    "a trigger that changes rows",
    "CREATE TRIGGER changes AFTER UPDATE ON roots BEGIN UPDATE models SET name = '/evil'; END",
)
_objects("an index on an endless expression", "CREATE INDEX evil ON models (length(hex(zeroblob(id * 100000000))))")
_objects("a table more", "CREATE TABLE more (x)")
_objects("a generated column", "ALTER TABLE models ADD COLUMN g AS (hex(zeroblob(300000000)))")
_objects("a column more", "ALTER TABLE models ADD COLUMN more TEXT")
_objects("a table less", "DROP TABLE frames")
_objects("names that speak", f'CREATE TABLE "{NASTY}" (x)')
_objects("a schema that is no SQL", "UPDATE sqlite_master SET sql = 'CREATE TABLE models (' || char(27) || '[2J' "
                                    "WHERE name = 'models'")  # fmt: skip
_objects("two tables on one page", "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE "
                                   "name = 'roots') WHERE name = 'models'")  # fmt: skip
_objects("lies to the planner", "ANALYZE", "UPDATE sqlite_stat1 SET stat = '9999999999 -1 x'")


@attack("a hundred thousand roots")
def _(stage: Stage) -> None:
    sql(stage, "INSERT INTO roots (path, pairing_due) WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r "
               "LIMIT 100000) SELECT CAST('/nowhere/' || x AS BLOB), 0 FROM r")  # fmt: skip


# Files of the library


@attack("a journal that names a victim")
def _(stage: Stage) -> None:
    victim = os.fsencode(stage.outside / "victim")
    with closing(sqlite3.connect(stage.catalog)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    magic, page = bytes.fromhex("d9d505f920a163d7"), 4096
    header = magic + struct.pack(">IIIII", 0, 7, stage.catalog.stat().st_size // page, 512, page)
    tail = struct.pack(">I", 0x40000000 // page + 1) + victim + struct.pack(">II", len(victim), sum(victim)) + magic
    Path(f"{stage.catalog}-journal").write_bytes(header.ljust(512, b"\0") + tail)


FILES: Final = (
    "catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm", "catalog.sqlite-journal", "writer.lock", "decoding",
    "vectors", "vectors/index-1.f16", "vectors/index-2.f16", "vectors/index-2.f16.tmp", "vectors/index-1.faiss",
)  # fmt: skip


def _free(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for one in path.iterdir():
            one.unlink()
        path.rmdir()
    path.unlink(missing_ok=True)


def _in_place_of(file: str) -> None:
    def place(what: str, put: Callable[[Stage, Path], None]) -> None:
        @attack(f"{what} in the place of {file}")
        def edit(stage: Stage) -> None:
            path = stage.library / file
            path.parent.mkdir(exist_ok=True)
            _free(path)
            put(stage, path)

    def link_to(*parts: str) -> Callable[[Stage, Path], None]:
        return lambda stage, path: path.symlink_to(stage.outside.joinpath(*parts))

    if file == "vectors":
        place("a link to another's folder", link_to("vectors"))
        place("a link to nothing", link_to("made"))
        place("a pipe", lambda _, path: os.mkfifo(path))
        return
    place("a link to a victim", link_to("victim"))
    place("a link to nothing", link_to("made"))
    place("a hard link to a victim", lambda stage, path: os.link(stage.outside / "victim", path))
    place("a pipe", lambda _, path: os.mkfifo(path))
    place("a link to a device", lambda _, path: path.symlink_to("/dev/zero"))
    place("a folder", lambda _, path: path.mkdir())
    place("four gigabytes of nothing", _sparse)
    if os.geteuid() == 0:
        place("a device", lambda _, path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)))


def _sparse(_: Stage, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 << 30)


for _file in FILES:
    _in_place_of(_file)


@attack("another's database in the place of the catalog")
def _(stage: Stage) -> None:
    with closing(sqlite3.connect(stage.outside / "foreign.sqlite")) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
    stage.catalog.unlink()
    stage.catalog.symlink_to(stage.outside / "foreign.sqlite")


def _bytes(name: str, change: Callable[[bytes], bytes]) -> None:
    for file in ("catalog.sqlite", "vectors/index-1.f16"):

        @attack(f"{file}: {name}")
        def edit(stage: Stage, file: str = file) -> None:
            path = stage.library / file
            path.write_bytes(change(path.read_bytes()))


_bytes("nothing in it", lambda data: b"")
_bytes("half of it", lambda data: data[: len(data) // 2])
_bytes("every byte another", lambda data: bytes(255 - one for one in data))
_bytes("noise in the middle", lambda data: data[:40] + b"\xff" * 60 + data[100:])
_bytes("a hundred times as long", lambda data: data * 100)


# Folders of photos


def _photos(name: str, put: Callable[[Path], object]) -> None:
    @attack(f"photos: {name}")
    def edit(stage: Stage) -> None:
        put(stage.photos)


def _lines(path: Path, count_bytes: int) -> None:
    with path.open("wb") as file:
        file.write(b"image,caption\nred.png,")
        file.truncate(count_bytes)


def _piped(folder: Path) -> None:
    (folder / "captions.csv").unlink()
    os.mkfifo(folder / "captions.csv")


PATTERNS: Final = "*a" * 60 + "b\n" + "**/" * 60 + "x\n"
_photos("pipes", lambda folder: [os.mkfifo(folder / f"pipe.{end}") for end in ("jpg", "txt", "json", "xmp")])
_photos("links to devices", lambda folder: [(folder / f"0.{end}").symlink_to("/dev/zero") for end in ("jpg", "txt")])
_photos("captions without end", lambda folder: _lines(folder / "captions.csv", 1 << 30))
_photos("a sidecar without end", lambda folder: _lines(folder / "red.png.json", 1 << 30))
_photos("a sidecar nested deeply", lambda folder: (folder / "red.png.json").write_text("[" * 1_000_000))
_photos("captions that are a pipe", _piped)
_photos("patterns without end", lambda folder: (folder / ".mmsearchignore").write_text(PATTERNS))
_photos("patterns that are a device", lambda folder: (folder / ".mmsearchignore").symlink_to("/dev/zero"))
_photos("a circle of links", lambda folder: (folder / "loop").symlink_to(folder))
_photos("names that speak", lambda folder: (folder / f"{NASTY}.jpg").write_bytes(b"no picture"))


# Models that are given along; nobody names them


@attack("a model with code beside the library")
def _(stage: Stage) -> None:
    give_model(stage)
    sql(stage, "UPDATE models SET name = ?", values=(str(stage.case / "given" / "model"),))


def give_model(stage: Stage) -> Path:
    """A sentence-transformers folder whose module is a Python file of its own: whoever loads it leaves a mark."""
    folder = stage.case / "given" / "model"
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]))
    version = {"__version__": {"sentence_transformers": "5.7.0"}}
    folder.joinpath("config_sentence_transformers.json").write_text(json.dumps(version))
    folder.joinpath("evil.py").write_text(f"open({str(stage.case / MARKER)!r}, 'a').write('ran')\nclass Module: pass\n")
    return folder
