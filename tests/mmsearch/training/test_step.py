"""One step against AdamW written out, the schedule against its formula, and the losses of the three loops of before."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mmsearch.errors import TrainingError
from mmsearch.training.step import Group, Optimiser, WarmupCosine, autocast, freeze_others


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def test_a_step_is_adamw_at_the_scheduled_rate_of_each_group() -> None:
    """Decay, then the first moment over the root of the second, both without bias (Loshchilov & Hutter 2019)."""
    slow, fast, kept = parameter(1.0, -2.0), parameter(3.0), parameter(5.0)
    schedule = WarmupCosine(steps=40)
    optimiser = Optimiser([Group([slow], 1e-3), Group([fast], 1e-2)], schedule, weight_decay=0.1)
    expected = {id(p): (p.detach().clone().double(), 0.0, 0.0) for p in (slow, fast)}
    for step in range(6):
        loss = (slow**2).sum() + (3 * fast).sum() + kept.sum()
        optimiser.step(loss, step)
        for p, peak in ((slow, 1e-3), (fast, 1e-2)):
            weight, first, second = expected[id(p)]
            gradient = 2 * weight if p is slow else torch.tensor([3.0]).double()
            rate = peak * min(1, (step + 1) / 2) * 0.5 * (1 + math.cos(math.pi * step / 40))
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            unbiased = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
            weight = weight * (1 - rate * 0.1) - rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
            expected[id(p)] = weight, first, second
            torch.testing.assert_close(p.detach().double(), weight, rtol=1e-6, atol=1e-7)
    assert kept.item() == 5.0


def test_the_schedule_of_tuning_starts_at_a_tenth_and_is_warm_after_a_tenth() -> None:
    schedule = WarmupCosine(steps=200, warmup=0.1, start=0.01 * 200)
    for step in range(200):
        done = step / 200
        assert schedule.factor(step) == pytest.approx(
            min(1.0, (done + 0.01) / 0.1) * 0.5 * (1 + math.cos(math.pi * done)), abs=1e-12
        )


def test_a_loss_that_is_no_number_moves_nothing() -> None:
    weight = parameter(1.0)
    said = Optimiser([Group([weight], 1e-3)], WarmupCosine(10), 0.0, lambda what: TrainingError(f"{what}, sadly"))
    with pytest.raises(TrainingError, match="the loss is nan, sadly"):
        said.step((weight * math.nan).sum(), 0)
    assert weight.item() == 1.0


def test_only_the_groups_get_a_gradient() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    freeze_others(model, [Group(list(model[1].parameters()), 1e-3)])
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


def test_precision_is_that_of_the_stage() -> None:
    one, cpu = torch.ones(2, 2), torch.device("cpu")
    for precision in (torch.float32, torch.bfloat16):
        with autocast(cpu, precision):
            assert (one @ one).dtype == precision
