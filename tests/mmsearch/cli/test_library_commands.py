"""The commands that look after a library hand their options on as they are; what they did is printed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from indexer.maintenance.prune import PruneReport
from mmsearch.cli import app as cli
from mmsearch.cli import library_commands


@dataclass
class Copied:
    """What a backup, an export or an import reports."""

    def to_dict(self) -> dict[str, object]:
        return {"files": 3}


@dataclass
class Stand:
    """In a library's place: writes down what is asked of it."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def __enter__(self) -> Stand:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append(("closed",))

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: object, **options: object) -> object:
            self.calls.append((name, *arguments, options))
            return {"relocate": 7, "prune": PruneReport(1, 0, 0, 0, True, (Path("/p/a.jpg"),))}.get(name, Copied())

        return call


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    made = Stand()
    monkeypatch.setattr(library_commands.options, "open_library", lambda library: made)
    return made


def test_relocate(stand: Stand, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["relocate", "/old", "/new", "--json"]) == 0
    assert stand.calls == [("relocate", Path("/old"), Path("/new"), {}), ("closed",)]
    assert json.loads(capfd.readouterr().out) == {"files": 7, "old": "/old", "new": "/new"}


def test_prune(stand: Stand, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prune", "/p", "--dry-run", "--excluded"]) == 0
    assert stand.calls[0] == ("prune", Path("/p"), {"dry_run": True, "offline": False, "excluded": True})
    out, err = capfd.readouterr()
    assert out == "/p/a.jpg\n"
    assert "1 file would be forgotten" in err
    assert cli.main(["prune"]) == 0
    assert stand.calls[2] == ("prune", None, {"dry_run": False, "offline": False, "excluded": False})


@pytest.mark.parametrize(
    ("arguments", "call"),
    [(["backup", "/b"], "backup"), (["export", "/e.tar"], "export"), (["import", "/e.tar"], "import_")],
)
def test_copies(stand: Stand, capfd: pytest.CaptureFixture[str], arguments: list[str], call: str) -> None:
    assert cli.main(arguments) == 0
    assert stand.calls[0] == (call, Path(arguments[1]), {})
    assert capfd.readouterr().out.split() == ["files", "3"]
