"""Counted costs against definitions: multiply-accumulates of every neck, memory of a training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastfcn_pl.config import build, schema
from fastfcn_pl.models.cost import cost, training_mib

NECKS = sorted(path.stem for path in (schema.CONF_DIR / "model" / "neck").glob("*.yaml"))
aten = torch.ops.aten


class Counter(TorchDispatchMode):
    """Multiply-accumulates by their definition: elements of the output, times the length of each sum of products."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is aten.convolution.default:
            self.macs += result.numel() * args[1][0].numel()
        elif func in (aten.mm.default, aten.bmm.default):
            self.macs += result.numel() * args[0].shape[-1]
        elif func is aten.addmm.default:
            self.macs += result.numel() * args[1].shape[-1]
        return result


@pytest.mark.slow
@pytest.mark.parametrize("neck", NECKS)
def test_multiply_accumulates_of_a_neck_are_those_of_the_definition(
    neck: str, make_config: Callable[..., DictConfig]
) -> None:
    cfg = make_config(f"model/neck={neck}", "model.backbone.name=test_resnet", "model.backbone.pretrained=false")
    model = build.model(cfg, 5).eval()
    with Counter() as counter, torch.no_grad():
        model(torch.zeros(1, 3, 64, 96))
    assert cost(model, (64, 96))["total"].gmacs == pytest.approx(counter.macs / 1e9, rel=0.01)


def test_memory_of_training_grows_by_what_the_backward_pass_needs() -> None:
    """A sigmoid keeps its output, which the next convolution keeps as well; the convolution's own is freed."""

    def network(depth: int) -> nn.Sequential:
        layers = [nn.Conv2d(3, 4, 1, bias=False), nn.Sigmoid()]
        for _ in range(depth - 1):
            layers += [nn.Conv2d(4, 4, 1, bias=False), nn.Sigmoid()]
        return nn.Sequential(*layers)

    shallow, deep = (training_mib(network(depth), 2, (64, 96)) for depth in (3, 5))
    maps, weights = 2 * math.prod((2, 4, 64, 96)), 2 * 4 * 4
    assert (deep - shallow) * 2**20 == 4 * (maps + weights)


@pytest.mark.slow
def test_memory_of_training_is_more_than_that_of_saved_tensors(make_config: Callable[..., DictConfig]) -> None:
    cfg = make_config("model.backbone.name=test_resnet", "model.backbone.pretrained=false", "model.neck.width=8")
    model = build.model(cfg, 5).train()
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(torch.zeros(2, 3, 64, 96))
    saved = sum(storages.values()) / 2**20
    assert outputs.extras
    assert saved < training_mib(model, 2, (64, 96)) < 1.5 * saved
