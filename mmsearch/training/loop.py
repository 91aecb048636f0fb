"""The training loop: the same for every stage. Epochs, averaged weights, checkpoints, learning curves.

In: a stage, a model, a folder. Out: `best.safetensors`, the averaged weights of the epoch with the best validation
recall, beside `last.safetensors`, from which a run that was cut off goes on at its last whole epoch: weights, optimizer
and progress are one file, replaced at once, so that they are never of two epochs. Next: `run.py` chains the stages.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmsearch.errors import CheckpointError, TrainingError
from mmsearch.models.checkpoint import load_notes, load_tensors, save_tensors
from mmsearch.models.vae import MultimodalVAE
from mmsearch.training.learning_curves import LearningCurves
from mmsearch.training.objective import Contrast, Terms
from mmsearch.training.recipe import Recipe
from mmsearch.training.stages import Batch, Stage, batch_terms
from mmsearch.training.step import Group, Optimiser, WarmupCosine, freeze_others

log = logging.getLogger(__name__)

_PROGRESS, _BESIDE = "progress", "progress.json"


@dataclass
class Progress:
    """Where a stage stands; a note inside the checkpoint."""

    epoch: int = 0
    step: int = 0
    best: float = -1.0


class Loop:
    """Trains one stage.

    Args:
        recipe: schedule, objective and seed.
        vae: the model; trained in place.
        contrast: holds the temperature; trained too.
        stage: the stage.
        folder: of this stage's checkpoints and curves.
    """

    def __init__(self, recipe: Recipe, vae: MultimodalVAE, contrast: Contrast, stage: Stage, folder: Path) -> None:
        self.recipe, self.vae, self.contrast, self.stage, self.folder = recipe, vae, contrast, stage, folder
        self.device = next(vae.parameters()).device
        groups = stage.groups(vae)
        groups = [*groups, Group(list(contrast.parameters()), groups[-1].lr)]
        schedule = WarmupCosine(max(1, stage.epochs * stage.steps_per_epoch()))
        self.optimiser = Optimiser(groups, schedule, recipe.schedule.weight_decay, self._diverged)
        self.average = AveragedModel(vae, multi_avg_fn=get_ema_multi_avg_fn(recipe.schedule.average))  # type: ignore[no-untyped-call]
        self.last = folder / "last.safetensors"
        self.progress = Progress()

    def run(self, resume: bool) -> Progress:
        """Train to the end of the stage, or go on where it stopped; the best averaged weights end up in the model.

        Raises:
            TrainingError: where the loss is not a number; the last good checkpoint stays.
            CheckpointError: where the checkpoint to resume from is damaged or of another architecture.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if resume and self.last.exists():
            self._load()
        curves = LearningCurves(self.folder / "curves.csv", resume_step=self.progress.step)
        freeze_others(self.vae, self.optimiser.groups)
        for epoch in range(self.progress.epoch, self.stage.epochs):
            row = self._epoch(epoch)
            curves.append(row)
            self._save()
        if (self.folder / "best.safetensors").exists():
            self.vae.load_state_dict(load_tensors(self.folder / "best.safetensors", str(self.device)))
        curves.plot(self.folder / "curves.png")
        return self.progress

    def _epoch(self, epoch: int) -> dict[str, float]:
        torch.manual_seed(self.recipe.seed * 1000 + epoch)
        self.vae.train()
        started, seen, count, sums = time.monotonic(), 0, 0, torch.zeros(5)
        for batch in self.stage.batches(epoch):
            terms = self._step(batch)
            values = (terms.total, terms.elbo, terms.kl, terms.agreement, terms.contrast)
            sums += torch.stack([v.detach().float().cpu() for v in values])
            seen, count = seen + len(batch.rows), count + 1
            if count % 20 == 0:
                rate = seen / (time.monotonic() - started)
                mean = (sums / count).tolist()
                log.info("%s epoch %d step %d: InfoNCE %.3f ELBO %.0f, %.0f pairs/s",
                         self.stage.name, epoch, count, mean[4], mean[1], rate)  # fmt: skip
        if not all(p.isfinite().all() for p in self.vae.parameters()):  # the last step has no loss after it
            raise self._diverged("a weight is not a number")
        seconds = time.monotonic() - started
        found = self.stage.validate(self.average.module.eval())  # type: ignore[arg-type]
        self.progress.epoch = epoch + 1
        if found.mean_recall > self.progress.best:
            self.progress.best = found.mean_recall
            save_tensors(self.folder / "best.safetensors", self.average.module.state_dict())
        t2i, i2t = found.text_to_image, found.image_to_text
        recalls = f"text to image {t2i.r1:.1f}/{t2i.r10:.1f}, image to text {i2t.r1:.1f}/{i2t.r10:.1f}"
        log.info("%s epoch %d: %s, mean %.2f", self.stage.name, epoch, recalls, found.mean_recall)
        names = ("loss", "elbo", "kl", "agreement", "contrast")
        means = dict(zip(names, (sums / max(1, count)).tolist(), strict=True))
        return {
            "epoch": epoch, "step": self.progress.step, **means, **found.columns,
            "mean_recall": found.mean_recall, "pairs_per_s": seen / seconds,
        }  # fmt: skip

    def _step(self, batch: Batch) -> Terms:
        terms = batch_terms(self.stage, self.vae, self.contrast, self.recipe.objective, batch)
        self.optimiser.step(terms.total, self.progress.step)
        self.average.update_parameters(self.vae)
        self.progress.step += 1
        return terms

    def _save(self) -> None:
        tensors = {f"vae.{k}": v for k, v in self.vae.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"contrast.{k}": v for k, v in self.contrast.state_dict().items()}
        for i, state in self.optimiser.adamw.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        notes = {_PROGRESS: json.dumps(asdict(self.progress))}
        save_tensors(self.last, {k: v.clone() for k, v in tensors.items()}, notes)

    def _load(self) -> None:
        tensors, notes = load_tensors(self.last, str(self.device)), load_notes(self.last)
        try:
            self._restore(tensors)
            # runs of before this note have their progress beside the checkpoint
            self.progress = Progress(**json.loads(notes.get(_PROGRESS) or (self.folder / _BESIDE).read_text()))
        except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            found = (lines[1:] or lines or [type(error).__name__])[0]  # torch's second line names what does not fit
            raise CheckpointError(
                f"checkpoint {self.last} is of another architecture or recipe ({found[:200].rstrip('.')}); go on with "
                "the recipe it was made with, or train without --resume"
            ) from error
        log.info("%s: resumed after epoch %d", self.stage.name, self.progress.epoch)

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.vae.load_state_dict(part("vae."))
        self.average.load_state_dict(part("average."))
        self.contrast.load_state_dict(part("contrast."))
        described = self.optimiser.adamw.state_dict()
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimizer.").items():
            index, key = name.split(".", 1)
            states.setdefault(int(index), {})[key] = value
        self.optimiser.adamw.load_state_dict({"state": states, "param_groups": described["param_groups"]})

    def _diverged(self, what: str) -> TrainingError:
        where = f"{what} in stage {self.stage.name}, step {self.progress.step}"
        if self.last.exists():
            kept = f"the last good checkpoint, after epoch {self.progress.epoch}, is in {self.folder}"
            return TrainingError(f"{where}; {kept}; lower the learning rates and go on with --resume")
        return TrainingError(
            f"{where}, in its first epoch, so there is no checkpoint of it yet; lower the learning rates and train "
            "again, with --resume to keep the stages before"
        )
