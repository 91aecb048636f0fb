"""Random lives of a library: whatever happened to folders and files, in the end it equals one that was made just now.

Each history does things that people do to two indexed folders, indexes now and then, and asks at every step that what
is found is there. Its last run and a prune leave what a new library of the same folders holds.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import COLOURS, FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.snapshots import contents

STEPS = 40


class History:
    """Two folders, a library, and dice."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.dice = random.Random(seed)
        self.folder = folder / "pictures"
        self.outside = folder
        self.roots = [self.folder / "a", self.folder / "b"]
        self.away: dict[Path, Path] = {}
        self.encoder = FakeEncoder()
        self.painted = 0
        self.written = 0
        for number, root in enumerate(self.roots):
            paint(root / "always.png", "grey", seed=1000 + number)
            for _ in range(4):
                self._paint(root)
        self.store = Store.open(folder / "library", create=True)
        for root in self.roots:
            self.store.ingest(root, self.encoder, batch_size=3)

    def step(self) -> None:
        here = [root for root in self.roots if root not in self.away]
        acts: list[Callable[[list[Path]], None]] = [
            *(self.new, self.new, self.delete, self.rename, self.move, self.swap, self.change, self.caption),
            *(self.unplug, self.plug, self.ignore, self.allow, self.relocate, self.prune, self.touch_nothing),
        ]
        self.dice.choice(acts)(here)
        if self.dice.random() < 0.5:
            self.store.ingest(self.dice.choice([*self.roots, self.folder]), self.encoder, batch_size=3)

    def new(self, here: list[Path]) -> None:
        for root in here:
            self._paint(root)

    def delete(self, here: list[Path]) -> None:
        if one := self._any(here):
            one.unlink()

    def rename(self, here: list[Path]) -> None:
        if one := self._any(here):
            one.rename(one.with_name(f"r{self.dice.randrange(10**6)}.png"))

    def move(self, here: list[Path]) -> None:
        if one := self._any(here):
            one.rename(self.dice.choice(here) / f"m{self.dice.randrange(10**6)}.png")

    def swap(self, here: list[Path]) -> None:
        one, other = self._any(here), self._any(here)
        if one and other and one != other:
            one.rename(self.outside / "t")
            other.rename(one)
            (self.outside / "t").rename(other)

    def change(self, here: list[Path]) -> None:
        if one := self._any(here):
            self._paint(one.parent, one.name)

    def caption(self, here: list[Path]) -> None:
        if one := self._any(here):
            self.written += 1
            one.with_suffix(".txt").write_text(f"words {self.written} of red")

    def unplug(self, here: list[Path]) -> None:
        if len(here) == 2:
            root = self.dice.choice(here)
            self.away[root] = root.rename(self.outside / f"away{self.dice.randrange(10**6)}")
            if self.dice.random() < 0.5:
                (root / "lost+found").mkdir(parents=True)

    def plug(self, here: list[Path]) -> None:
        for root, where in self.away.items():
            shutil.rmtree(root, ignore_errors=True)
            where.rename(root)
        self.away = {}

    def relocate(self, here: list[Path]) -> None:
        for root in list(self.away):
            shutil.rmtree(root, ignore_errors=True)
            new = self.away.pop(root).rename(self.folder / f"root{self.dice.randrange(10**6)}")
            self.store.relocate(root, new)
            self.roots[self.roots.index(root)] = new

    def ignore(self, here: list[Path]) -> None:
        (self.dice.choice(here) / ".mmsearchignore").write_text(self.dice.choice(["m*.png", "r*", "*.txt"]))

    def allow(self, here: list[Path]) -> None:
        for root in here:
            (root / ".mmsearchignore").unlink(missing_ok=True)

    def prune(self, here: list[Path]) -> None:
        self.store.prune(excluded=self.dice.random() < 0.3)

    def touch_nothing(self, here: list[Path]) -> None:
        before = self.encoder.encoded
        for _ in range(2):
            report = self.store.ingest(self.roots[0], self.encoder, batch_size=3)
        assert (report.encoded, report.added, report.updated, report.moved) == (0, 0, 0, 0)
        assert self.encoder.encoded - before <= 40

    def _any(self, here: list[Path]) -> Path | None:
        pictures = sorted(path for root in here for path in root.glob("*.png") if path.name != "always.png")
        return self.dice.choice(pictures) if pictures else None

    def _paint(self, root: Path, name: str | None = None) -> None:
        self.painted += 1
        side = 20 + self.painted  # another size in bytes, too: a change within one tick of the clock is still seen
        colour = self.dice.choice(list(COLOURS))
        paint(root / (name or f"p{self.painted}.png"), colour, (side, 30), seed=self.painted)


@pytest.mark.parametrize("seed", range(3))
def test_in_the_end_it_equals_a_library_made_just_now(tmp_path: Path, seed: int) -> None:
    history = History(seed, tmp_path)
    query = np.asarray(FakeEncoder().embed_texts(["red"]).mu[0])
    for _ in range(STEPS):
        history.step()
        for hit in history.store.search(query, 1000, fingerprint=history.encoder.fingerprint):
            assert not any(root in hit.path.parents for root in history.away)
    history.plug([])
    for _ in range(2):  # the second for captions of files that went from the first folder to the second
        for root in (*history.roots, history.folder):
            history.store.ingest(root, history.encoder, batch_size=3)
    history.store.prune(excluded=True)
    history.store.close()
    with Store.open(tmp_path / "fresh", create=True) as fresh:
        for root in (*history.roots, history.folder):
            fresh.ingest(root, FakeEncoder())
    lived, new = contents(history.store.path), contents(tmp_path / "fresh")
    assert lived[:2] == new[:2]
    live = [row for row in lived[2] if row[-1]]
    assert live == new[2]
    assert lived[-1] == new[-1]
