"""Schedules and their warm-up against the formulas of timm and transformers, over 200 steps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from timm.scheduler import CosineLRScheduler, PolyLRScheduler
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler

from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.schedules import Warmup

STEPS, RATES = 200, (0.01, 0.1)
MakeConfig = Callable[..., DictConfig]


def _warmup(**given: Any) -> Warmup:
    return Warmup(**{"steps": None, "epochs": None, "share": None, "start": 1e-3, **given})


def _sgd() -> SGD:
    groups: list[dict[str, Any]] = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in RATES]
    return SGD(groups, momentum=0.9)


def _schedule(cfg: DictConfig, optimizer: SGD, length: int, start: float) -> LRScheduler:
    schedule = instantiate(cfg.scheduler)(optimizer, STEPS - length)
    return _warmup(start=start).before(schedule, length) if length else schedule


def _step(optimizer: SGD, schedule: LRScheduler) -> list[float]:
    """Take a step and return the rates that it has."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    optimizer.step()
    schedule.step()
    return rates


def _rates(cfg: DictConfig, length: int, start: float = 1e-3) -> list[list[float]]:
    optimizer = _sgd()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of which torch has some for a wrong order of steps
        schedule = _schedule(cfg, optimizer, length, start)
        return [_step(optimizer, schedule) for _ in range(STEPS)]


def _timms(kind: type, length: int, **options: Any) -> list[list[float]]:
    optimizer = _sgd()
    schedule = kind(optimizer, STEPS - length, warmup_t=length, warmup_prefix=True, t_in_epochs=False, **options)
    rates = []
    for step in range(STEPS):
        schedule.step_update(step)
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    return rates


@pytest.mark.parametrize("length", [0, 1, 30])
def test_poly_and_cosine_are_timms(length: int, make_config: MakeConfig) -> None:
    """Without the warm-up, in which timm rises from one rate for all groups."""
    pairs: list[tuple[str, type, dict[str, Any]]] = [
        ("poly", PolyLRScheduler, {"power": 0.9, "lr_min": 0.0}),
        ("cosine", CosineLRScheduler, {"lr_min": 0.0}),
    ]
    for name, kind, options in pairs:
        found = _rates(make_config(f"scheduler={name}"), length)
        torch.testing.assert_close(found[length:], _timms(kind, length, **options)[length:], rtol=1e-11, atol=0)


def _transformers_cosine(step: int, length: int) -> float:
    if step < length:
        return step / length
    return 0.5 * (1 + math.cos(math.pi * (step - length) / (STEPS - length)))


def _transformers_poly(step: int, length: int) -> float:
    return step / length if step < length else 1 - (step - length) / (STEPS - length)


def _transformers_constant(step: int, length: int) -> float:
    return min(1, step / length)


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        (["scheduler=cosine"], _transformers_cosine),
        (["scheduler=poly", "scheduler.power=1"], _transformers_poly),
        (["scheduler=constant"], _transformers_constant),
    ],
)
def test_the_warm_up_is_that_of_transformers(
    options: list[str], formula: Callable[[int, int], float], make_config: MakeConfig
) -> None:
    """The formulas of `transformers.optimization`, which begins at a rate of zero."""
    found = _rates(make_config(*options), 40, start=1e-12)
    expected = [[rate * formula(step, 40) for rate in RATES] for step in range(STEPS)]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_one_cycle_rises_and_falls_by_cosines(make_config: MakeConfig) -> None:
    """The formula of arXiv 1708.07120 as torch and fastai have it, with peaks at the rates of the groups."""
    found, peak = _rates(make_config("scheduler=one_cycle"), 0), 0.3 * STEPS - 1
    lowest, last = 1 / 25, 1 / 25 / 1e4

    def formula(step: int) -> float:
        rises = step <= peak
        low, share = (lowest, step / peak) if rises else (last, 1 - (step - peak) / (STEPS - 1 - peak))
        return low + (1 - low) * (1 - math.cos(math.pi * share)) / 2

    torch.testing.assert_close(found, [[rate * formula(step) for rate in RATES] for step in range(STEPS)])


def test_a_warm_up_rises_to_where_one_cycle_begins(make_config: MakeConfig) -> None:
    found = _rates(make_config("scheduler=one_cycle"), 10, start=0.1)
    assert [rates[0] for rates in found[:11]] == pytest.approx([0.01 / 25 * (0.1 + 0.09 * i) for i in range(11)])


@pytest.mark.parametrize("name", ["poly", "cosine", "one_cycle", "constant"])
@pytest.mark.parametrize("stop", [0, 17, 30, 31, 150])
def test_a_schedule_resumes_exactly(name: str, stop: int, make_config: MakeConfig) -> None:
    cfg = make_config(f"scheduler={name}")
    expected = _rates(cfg, 30)
    optimizer = _sgd()
    schedule = _schedule(cfg, optimizer, 30, 1e-3)
    for _ in range(stop):
        _step(optimizer, schedule)
    states = optimizer.state_dict(), schedule.state_dict()
    optimizer = _sgd()
    schedule = _schedule(cfg, optimizer, 30, 1e-3)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    assert [_step(optimizer, schedule) for _ in range(stop, STEPS)] == expected[stop:]


def test_a_length_is_given_in_steps_epochs_or_a_share() -> None:
    for given, length in (
        ({}, 0),
        ({"steps": 7}, 7),
        ({"epochs": 1.5}, 15),
        ({"share": 0.05}, 10),
        ({"share": 0.0}, 0),
    ):
        assert _warmup(**given).length(STEPS, 10) == length


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 5, "share": 0.1}, r"^warmup\.steps=5 and warmup\.share=0\.1 exclude each other"),
        ({"epochs": -1.0}, r"^warmup\.epochs=-1\.0: use a positive number"),
        ({"start": 0.0}, r"^warmup\.start=0\.0: use a number above 0"),
        ({"steps": 200}, r"^the warm-up takes 200 steps, and training only 200"),
        ({"share": 1.0}, r"^the warm-up takes 200 steps"),
    ],
)
def test_a_wrong_warm_up_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _warmup(**given).length(STEPS, 10)
