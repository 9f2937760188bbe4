"""Parameter groups and the poly schedule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.optim import optimizer


def _net() -> nn.ModuleDict:
    return nn.ModuleDict({"backbone": nn.Linear(2, 3), "neck": nn.Linear(3, 3), "head": nn.Linear(3, 1)})


def _build(net: nn.Module, batch_size: int, base: int | None) -> torch.optim.Optimizer:
    sgd = partial(torch.optim.SGD, momentum=0.9)
    return optimizer(net, batch_size, lr=0.01, head_lr_ratio=10, base_batch_size=base, algorithm=sgd)


def test_every_parameter_is_in_exactly_one_group() -> None:
    net = _net()
    groups = _build(net, 16, 16).param_groups
    found = [p for group in groups for p in group["params"]]
    assert len(found) == len(set(map(id, found))) == len(list(net.parameters()))
    assert [group["name"] for group in groups] == ["backbone", "head"]
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.1])


@pytest.mark.parametrize(
    ("batch_size", "base", "lr"), [(16, 16, 0.01), (8, 16, 0.005), (64, 16, 0.04), (8, None, 0.01)]
)
def test_learning_rate_follows_the_effective_batch(batch_size: int, base: int | None, lr: float) -> None:
    assert _build(_net(), batch_size, base).param_groups[0]["lr"] == pytest.approx(lr)


def test_a_rate_that_would_be_ignored_is_refused() -> None:
    sgd = partial(torch.optim.SGD, lr=1.0)
    with pytest.raises(UserError, match=r"optimizer\.algorithm\.lr would be ignored"):
        optimizer(_net(), 16, lr=0.01, head_lr_ratio=10, base_batch_size=16, algorithm=sgd)


def test_the_poly_schedule_is_the_papers(make_config: Callable[..., DictConfig]) -> None:
    """`lr * (1 - step / steps) ** 0.9`, the official `lr_scheduler.py`."""
    built = _build(_net(), 16, 16)
    schedule = instantiate(make_config().scheduler)(built, 10)
    rates = []
    for _ in range(10):
        rates.append(schedule.get_last_lr()[0])
        built.step()
        schedule.step()
    assert rates == pytest.approx([0.01 * (1 - i / 10) ** 0.9 for i in range(10)])
    assert schedule.get_last_lr() == [0, 0]
