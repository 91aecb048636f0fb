"""Five fuzzers: what somebody gives is changed at random, a command meets it, and the same rules hold as for attacks.

In: a `Stage`, dice. Out: what was wrong. Next: `../bench/fuzz.py`, which runs them for minutes or hours.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mmsearch.inference.load_model import PRETRAINED
from tests.attacks.mutations import of_bytes, of_json, of_value
from tests.attacks.stage import ROOT, Stage

Fuzzer = Callable[[Stage, random.Random], list[str]]
ANSWER_S: Final = 10.0
PEAK_BYTES: Final = 1 << 30


def archive(stage: Stage, dice: random.Random) -> list[str]:
    """An archive whose bytes, members, manifest or rows were changed, with checksums that are right again or not."""
    stage.reset(given=True)
    whole = stage.archive.read_bytes()
    if dice.random() < 0.3:
        stage.archive.write_bytes(of_bytes(whole, dice, whole))
    else:
        stage.archive.write_bytes(_packed(_spoilt_members(_members(whole), dice), dice))
    found = stage.attack("import", stage.archive, "--library", stage.dest)
    if stage.dest.exists() and not found:
        found = stage.attack(*dice.choice(_reading(stage)), "--library", stage.dest)
    return found


def cells(stage: Stage, dice: random.Random) -> list[str]:
    """A catalog with other values in a few cells."""
    stage.reset(given=dice.random() < 0.7)
    with closing(sqlite3.connect(stage.catalog, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:  # they would change the row once more
            connection.execute(f"DROP TRIGGER {name}")
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            _spoil_cell(connection, dice)
        for _, statement in triggers:
            connection.execute(statement)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return stage.attack(*dice.choice(_commands(stage)))


def index(stage: Stage, dice: random.Random) -> list[str]:
    """The files of the index with other bytes, and a row that says they are right, or a catalog with other bytes."""
    stage.reset(given=dice.random() < 0.5)
    files = sorted((stage.library / "vectors").iterdir())
    if dice.random() < 0.2:
        stage.catalog.write_bytes(of_bytes(stage.catalog.read_bytes(), dice))
    else:
        path = dice.choice(files)
        data = of_bytes(path.read_bytes(), dice, stage.catalog.read_bytes()[:4096])
        path.write_bytes(data)
        if dice.random() < 0.7:
            with closing(sqlite3.connect(stage.catalog, isolation_level=None)) as connection:
                said = (hashlib.sha256(data).hexdigest(), len(data))
                connection.execute("UPDATE generations SET sha256 = ?, size_bytes = ?", said)
                if dice.random() < 0.5:
                    _spoil_cell(connection, dice, "generations")
                elif dice.random() < 0.5:
                    _spoil_facts(connection, dice)
    return stage.attack(*dice.choice(_commands(stage)))


def model(stage: Stage, dice: random.Random) -> list[str]:
    """A copy of the default model with one file changed, its checksums right again or not, named by the person."""
    stage.reset(given=True)
    folder = stage.case / "model"
    shutil.copytree(PRETRAINED / "default", folder)
    name = dice.choice(("model.json", "model.json", "tokenizer.json", "image.onnx", "text.onnx", "queries.safetensors"))
    path = folder / name
    whole = path.read_bytes()
    if name.endswith(".json") and dice.random() < 0.8:
        path.write_text(json.dumps(of_json(json.loads(whole), dice, dice.choice((1, 1, 3)))))
    else:
        path.write_bytes(of_bytes(whole, dice, (folder / "queries.safetensors").read_bytes()[:4096]))
    if name != "model.json" and dice.random() < 0.8:
        _seal(folder)
    command = dice.choice((["index", stage.more], ["search", "red"], ["rebuild"]))
    return stage.attack(*command, "--model", folder, fake=False)


def frames(stage: Stage, dice: random.Random) -> list[str]:
    """Questions to a server, whole and broken, slow and many; it goes on, and answers the next good one."""
    server = _server_of(stage)
    question = {
        "protocol": server.protocol, "library": server.library, "texts": ["red"], "image": None, "k": 3, "within": None,
        "folder": None, "since": None, "until": None,
    }  # fmt: skip
    line = json.dumps(of_json(question, dice, dice.choice((1, 1, 2, 5)))).encode() + b"\n"
    if dice.random() < 0.5:
        line = of_bytes(line, dice, os.urandom(64) if dice.random() < 0.1 else line)
    server.say(line, hang_up=dice.random() < 0.3)
    return [f"{one}; after the frame {line[:200]!r}" for one in server.faults(question)]


FUZZERS: Final[dict[str, Fuzzer]] = {
    "archive": archive, "cells": cells, "index": index, "model": model, "frames": frames,
}  # fmt: skip


def _reading(stage: Stage) -> tuple[list[str | Path], ...]:
    return ["status"], ["search", "red"], ["search", "a green garden", "--json"], ["errors"], ["doctor"]


def _commands(stage: Stage) -> tuple[list[str | Path], ...]:
    return (
        *_reading(stage), ["similar", stage.photos / "red.png"], ["index", stage.photos], ["index", stage.more],
        ["doctor", "--repair"], ["rebuild", "--model", "other"], ["prune"], ["backup", stage.dest],
        ["export", stage.dest], ["relocate", stage.photos, stage.more],
    )  # fmt: skip


def _spoil_cell(connection: sqlite3.Connection, dice: random.Random, table: str | None = None) -> None:
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    table = dice.choice(sorted(tables)) if table is None else table
    columns = [one[1] for one in connection.execute(f"PRAGMA table_info({table})")]
    column = dice.choice(columns)
    rows = connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
    if not rows:
        return
    number, value = dice.choice(rows)
    with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeError):  # a value that even SQLite does not take
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (of_value(value, dice), number))


def _spoil_facts(connection: sqlite3.Connection, dice: random.Random) -> None:
    (facts,) = connection.execute("SELECT facts FROM generations").fetchone()
    said = json.dumps(of_json(json.loads(facts), dice, dice.choice((1, 2))))
    connection.execute("UPDATE generations SET facts = ?", (said.encode("utf-8", "replace").decode(),))


def _members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]


def _spoilt_members(members: dict[str, bytes], dice: random.Random) -> dict[str, bytes]:
    name = dice.choice(sorted(members))
    if name.endswith(".parquet") and dice.random() < 0.7:
        members[name] = _spoilt_rows(members[name], dice)
    elif name.endswith(".json"):
        members[name] = json.dumps(of_json(json.loads(members[name]), dice, dice.choice((1, 2)))).encode()
        return members
    else:
        members[name] = of_bytes(members[name], dice)
    if dice.random() < 0.85:
        manifest = json.loads(members["manifest.json"])
        said = {"size_bytes": len(members[name]), "sha256": hashlib.sha256(members[name]).hexdigest()}
        if name in manifest["files"]:
            manifest["files"][name] = said
        members["manifest.json"] = json.dumps(manifest).encode()
    return members


def _spoilt_rows(data: bytes, dice: random.Random) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    if not table.num_rows:
        return of_bytes(data, dice)
    column = dice.choice(table.column_names)
    values = table[column].to_pylist()
    place = dice.randrange(len(values))
    values[place] = of_value(values[place], dice)
    for kind in (table.schema.field(column).type, pa.string(), pa.binary(), pa.int64(), pa.float64()):
        try:
            array = pa.array(values, kind)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue
        made = io.BytesIO()
        pq.write_table(table.set_column(table.column_names.index(column), column, array), made)
        return made.getvalue()
    return of_bytes(data, dice)


def _packed(members: dict[str, bytes], dice: random.Random) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if dice.random() < 0.02:
                info.name = dice.choice(("../../outside/victim", "/tmp/x", f"./{name}", name * 30, "\x1b[2J"))
            if dice.random() < 0.02:
                info.type = dice.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE))
                info.linkname, info.size = "../../outside/victim", 0
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _seal(folder: Path) -> None:
    path = folder / "model.json"
    described: dict[str, Any] = json.loads(path.read_text())
    for name in described.get("files", {}):
        described["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(described))


class _Server:
    """`mmsearch serve` over the library of a stage, asked by hand."""

    def __init__(self, stage: Stage) -> None:
        from mmsearch.server import client

        stage.reset(given=False)
        self.protocol, self.library = client.PROTOCOL, os.path.realpath(stage.library)
        self._runtime = tempfile.TemporaryDirectory(prefix="mm-", dir="/tmp")  # short: paths of sockets must be
        environment = {**os.environ, "MMSEARCH_HOME": str(stage.home), "XDG_RUNTIME_DIR": self._runtime.name}
        command = [sys.executable, "-m", "tests.e2e.runner", "serve", "--socket", "--library", str(stage.library)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        self.heard = self.process.stderr.readline().decode().rpartition(" on ")[2].strip()

    def ask(self, line: bytes) -> bytes:
        with closing(socket.socket(socket.AF_UNIX)) as end:
            end.settimeout(ANSWER_S)
            end.connect(self.heard)
            end.sendall(line)
            with end.makefile("rb") as answer:
                lines = iter(answer.readline, b"")
                return next((one for one in lines if b'"accepted"' not in one), b"")

    def say(self, line: bytes, *, hang_up: bool) -> None:
        """Send what may be no question; who hangs up takes no answer."""
        with closing(socket.socket(socket.AF_UNIX)) as end:
            end.settimeout(ANSWER_S if line.endswith(b"\n") and not hang_up else 0.02)
            try:
                end.connect(self.heard)
                end.sendall(line)
                if not hang_up:
                    end.recv(1 << 20)
            except OSError:
                pass

    def faults(self, question: dict[str, Any]) -> list[str]:
        """What is wrong with the server now."""
        started_s = time.monotonic()
        try:
            answer = json.loads(self.ask(json.dumps(question).encode() + b"\n"))
        except (OSError, ValueError) as error:
            answer = {"error": repr(error)}
        found = [] if "hits" in answer else [f"then it says {str(answer)[:200]}"]
        if time.monotonic() - started_s > ANSWER_S:
            found.append("it is slow")
        if self.process.poll() is not None:
            return [*found, f"it ended with {self.process.returncode}"]
        held = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = next(int(one.split()[1]) << 10 for one in held.splitlines() if one.startswith("VmHWM"))
        open_files = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        return found + [f"{peak >> 20} MB"] * (peak > PEAK_BYTES) + [f"{open_files} open files"] * (open_files > 200)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._runtime.cleanup()


_servers: dict[int, _Server] = {}


def _server_of(stage: Stage) -> _Server:
    found = _servers.get(id(stage))
    if found is None or found.process.poll() is not None:
        found = _servers[id(stage)] = _Server(stage)
        stage.closing.append(found.close)
    return found
