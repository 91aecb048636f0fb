"""One training step, for every stage and for the tuning of heads: learning rate, precision, AdamW, memory.

    batch -> encodings, in the stage's precision -> objective, in float32 -> AdamW at the scheduled learning rate

In: weights by peak learning rate, a schedule. Out: weights that moved. Next: `loop.py`, `self_distillation.py` and
`tuning/fit.py` say what is learned; `stages.py` what a batch is.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmsearch.errors import TrainingError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


class Group(NamedTuple):
    """Weights that share a peak learning rate."""

    parameters: list[nn.Parameter]
    lr: float


@dataclass(frozen=True)
class WarmupCosine:
    """A linear warm-up, times a cosine that falls to zero (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983).

    Attributes:
        steps: of the whole run.
        warmup: part of it in which the learning rate rises.
        start: how many steps of the warm-up the first step is ahead of zero.
    """

    steps: int
    warmup: float = 0.05
    start: float = 1.0

    def factor(self, step: int) -> float:
        """The learning rate of a step, from 0 on, as a part of its peak."""
        rise = min(1.0, (step + self.start) / max(1.0, self.warmup * self.steps))
        return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))


class Optimiser:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101) along a schedule.

    Args:
        groups: the weights that move.
        schedule: of their learning rates.
        weight_decay: of all of them.
        diverged: the error to raise for a loss that is not a number, from what is wrong.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        schedule: WarmupCosine,
        weight_decay: float,
        diverged: Callable[[str], TrainingError] = TrainingError,
    ) -> None:
        self.groups, self.schedule, self._diverged = list(groups), schedule, diverged
        self.adamw = torch.optim.AdamW([{"params": g.parameters} for g in groups], weight_decay=weight_decay)

    def step(self, loss: Tensor, step: int) -> None:
        """Move the weights once, as the `step`-th of the run.

        Raises:
            TrainingError: the loss is not a number; no weight was moved.
        """
        if not torch.isfinite(loss):
            raise self._diverged(f"the loss is {loss.item()}")
        for moved, group in zip(self.adamw.param_groups, self.groups, strict=True):
            moved["lr"] = group.lr * self.schedule.factor(step)
        self.adamw.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.adamw.step()


def freeze_others(model: nn.Module, groups: Sequence[Group]) -> None:
    """Only the weights of `groups` get a gradient."""
    moving = {id(p) for group in groups for p in group.parameters}
    for p in model.parameters():
        p.requires_grad_(id(p) in moving)


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Arithmetic in a stage's precision: bfloat16 where trunks run, float32 on features."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16)


def keep_freed_memory() -> bool:
    """Ask glibc to serve large blocks from its heap and never shrink it. Says whether it could: elsewhere it cannot.

    glibc gives large blocks back to the kernel at once, and a step allocates the same gigabytes anew: on two cores the
    trunk's forward ran at 38 images/s with four fifths of the time in the kernel, and at 160 images/s with this.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # another libc
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_M_TOP_PAD, 2**28))
