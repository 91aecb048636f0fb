"""The training loop on sixteen scenes: a run that was cut off ends as one that was not; NaN ends it cleanly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mmsearch.training
from mmsearch.data.scenes import write_scenes
from mmsearch.errors import CheckpointError, TrainingError
from mmsearch.models.checkpoint import Architecture, build, load_tensors, save_tensors
from mmsearch.models.tokens import word_tokenizer
from mmsearch.models.vae import Encoding, MultimodalVAE
from mmsearch.training import loop as loop_module
from mmsearch.training.corpus import Corpus, read_corpus
from mmsearch.training.learning_curves import LearningCurves
from mmsearch.training.loop import Loop
from mmsearch.training.objective import Contrast
from mmsearch.training.recipe import DataSource, Recipe, load_recipe
from mmsearch.training.stages import Batch
from mmsearch.training.trunk_stages import PixelStage

LATENT = 8


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two epochs of two steps each."""
    folder = write_scenes(tmp_path_factory.mktemp("loop") / "scenes", 20, seed=3).parent
    shipped = load_recipe(Path(mmsearch.training.__file__).with_name("scenes.toml"))
    return replace(
        shipped,
        data=(DataSource(str(folder)),),
        validation=str(folder),
        model=replace(shipped.model, latent_dim=LATENT),
        schedule=replace(shipped.schedule, epochs=2, batch=8, texts=2),
    )


class Disturbed(PixelStage):
    """A stage that something happens to at one step of one epoch; `seen` are the steps that were asked for."""

    def __init__(
        self, recipe: Recipe, corpus: Corpus, happens: Callable[[Tensor], Tensor] | None = None, at: int = 4
    ) -> None:
        tokenizer = word_tokenizer(c for captions in corpus.captions[: corpus.train] for c in captions)
        super().__init__(recipe, corpus, tokenizer, side_px=64, epochs=recipe.schedule.epochs)
        self.vocabulary, self.happens, self.at, self.seen = tokenizer.get_vocab_size(), happens, at, 0

    def encode(self, vae: MultimodalVAE, batch: Batch) -> dict[str, Encoding]:
        encodings = super().encode(vae, batch)
        self.seen += 1
        if self.happens is not None and self.seen == self.at:
            encodings["image"] = encodings["image"]._replace(mu=self.happens(encodings["image"].mu))
        return encodings


def loop(
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    happens: Callable[[Tensor], Tensor] | None = None,
    at: int = 4,  # the last step of the second epoch
) -> Loop:
    stage = Disturbed(recipe, read_corpus(recipe), happens, at)
    torch.manual_seed(seed)
    latent = recipe.model.latent_dim
    vae = build(Architecture(kind="scratch", vocabulary=stage.vocabulary, latent_dim=latent))
    return Loop(recipe, vae, Contrast(recipe.objective.temperature), stage, folder)


def interrupt(mu: Tensor) -> Tensor:
    raise KeyboardInterrupt


def not_a_number(mu: Tensor) -> Tensor:
    return mu * torch.nan


def slope_is_not_a_number(mu: Tensor) -> Tensor:
    mu.register_hook(not_a_number)  # type: ignore[no-untyped-call]
    return mu


def rows(folder: Path) -> list[dict[str, float]]:
    kept = LearningCurves(folder / "curves.csv", resume_step=10_000).rows
    return [{name: value for name, value in row.items() if name != "pairs_per_s"} for row in kept]


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(recipe: Recipe, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    uninterrupted = loop(recipe, whole)
    progress = uninterrupted.run(resume=False)
    assert (progress.epoch, progress.step) == (2, 4)

    with pytest.raises(KeyboardInterrupt):
        loop(recipe, cut, happens=interrupt).run(resume=False)
    assert [row["epoch"] for row in rows(cut)] == [0]
    resumed = loop(recipe, cut, seed=99)  # other weights at the start: they must all be replaced
    assert resumed.run(resume=True) == progress
    assert resumed.stage.seen == 2  # type: ignore[attr-defined]  # the second epoch alone

    for name in ("last.safetensors", "best.safetensors"):
        expected, found = load_tensors(whole / name), load_tensors(cut / name)
        assert expected.keys() == found.keys()
        for key in expected:
            assert torch.equal(expected[key], found[key]), f"{name} {key}"
    assert rows(cut) == rows(whole)
    best = load_tensors(whole / "best.safetensors")
    for model in (uninterrupted.vae, resumed.vae):
        assert all(torch.equal(value, best[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("moment", ["after best 1", "before last 2", "after last 2"])
def test_a_kill_while_saving_loses_at_most_the_epoch(
    moment: str, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on disk is of one epoch at every moment, so that the run ends as one that was never killed."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    progress = loop(recipe, whole).run(resume=False)
    when, name, number = moment.split()
    calls = 0

    def killed(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
        nonlocal calls
        calls += path.stem == name
        last_call = path.stem == name and calls == int(number)
        if last_call and when == "before":
            raise KeyboardInterrupt
        save_tensors(path, tensors, notes)
        if last_call:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "save_tensors", killed)
        with pytest.raises(KeyboardInterrupt):
            loop(recipe, cut).run(resume=False)
    # other weights at the start, where there is a checkpoint to replace them
    assert loop(recipe, cut, seed=99 if (cut / "last.safetensors").exists() else 0).run(resume=True) == progress
    for file in ("last.safetensors", "best.safetensors"):
        expected, found = load_tensors(whole / file), load_tensors(cut / file)
        assert all(torch.equal(expected[key], found[key]) for key in expected | found), file
    assert rows(cut) == rows(whole)
    assert {path.name for path in cut.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.parametrize(
    ("happens", "said"),
    [(not_a_number, "the loss is nan"), (slope_is_not_a_number, "a weight is not a number")],
)
def test_nan_ends_the_run_and_the_last_good_checkpoint_stays(
    happens: Callable[[Tensor], Tensor], said: str, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=rf"{said} in stage whole, .* after epoch 1, is in .*--resume") as caught:
        loop(recipe, tmp_path, happens=happens).run(resume=False)
    assert "\n" not in str(caught.value)
    for name in ("last.safetensors", "best.safetensors"):
        assert all(value.isfinite().all() for value in load_tensors(tmp_path / name).values()), name
    assert len(rows(tmp_path)) == 1
    assert loop(recipe, tmp_path).run(resume=True).epoch == 2  # and the run can go on from it
    assert len(rows(tmp_path)) == 2


def test_nan_in_the_first_epoch_says_that_there_is_no_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 1, in its first epoch, so there is no checkpoint") as caught:
        loop(recipe, tmp_path, happens=not_a_number, at=2).run(resume=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "last.safetensors").exists()


def test_a_checkpoint_of_another_model_or_a_truncated_one_is_one_line(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        loop(recipe, tmp_path, happens=interrupt).run(resume=False)
    wider = replace(recipe, model=replace(recipe.model, latent_dim=LATENT * 2))
    with pytest.raises(CheckpointError, match=r"of another architecture or recipe \(size mismatch for .*16") as caught:
        loop(wider, tmp_path).run(resume=True)
    assert "\n" not in str(caught.value)
    last = tmp_path / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"last\.safetensors cannot be read"):
        loop(recipe, tmp_path).run(resume=True)


def test_learning_rates_warm_up_and_fall_to_nothing(recipe: Recipe, tmp_path: Path) -> None:
    long = replace(recipe, schedule=replace(recipe.schedule, epochs=50))  # a hundred steps
    optimiser = loop(long, tmp_path).optimiser
    peak = recipe.schedule.rate_heads
    assert [group.lr for group in optimiser.groups] == [peak, peak]  # the heads' and the temperature's
    rates = [peak * optimiser.schedule.factor(step) for step in range(101)]
    assert rates[0] == pytest.approx(peak / 5)  # a twentieth of a hundred steps
    assert max(rates) == pytest.approx(peak, rel=0.01)
    assert rates[50] == pytest.approx(peak / 2)
    assert rates[100] == pytest.approx(0, abs=1e-9)
    assert rates[5:] == sorted(rates[5:], reverse=True)
