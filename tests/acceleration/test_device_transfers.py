"""A training step on a GPU takes nothing from the CPU for which it would wait; tensors are fake, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastfcn_pl.acceleration.training import optimize_for_training
from fastfcn_pl.config import build
from fastfcn_pl.ops import triton_support, upsampled_cross_entropy
from tests.conftest import TINY

GPU = torch.device("cuda")


class _Crossings(TorchDispatchMode):
    """Remembers operations from one device to another, and those whose result Python reads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {t.device.type for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)}
        if len(devices) > 1 or func is torch.ops.aten._local_scalar_dense.default:
            self.found.append(str(func))
        return result


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("weights", ["null", "[1, 2, 3, 4, 5, 6, 7, 8]"])
def test_a_training_step_stays_on_the_gpu(
    weights: str, make_config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = make_config(
        "data=shapes", *TINY, "model/head=encnet", f"loss.terms.cross_entropy.loss.class_weights={weights}"
    )
    module = build.module(cfg, build.datamodule(cfg).spec).train()
    options = {"precision": "bf16-mixed", "channels_last": True}
    module.memory_format = optimize_for_training(module.model, device=GPU, **options)
    # Kept from the first step on, when they come from the CPU:
    monkeypatch.setattr(triton_support, "runs_on", lambda x: False)
    monkeypatch.setattr(upsampled_cross_entropy, "interpolation", _kept)
    monkeypatch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
    with FakeTensorMode(allow_non_fake_inputs=True), _Crossings() as crossings:
        module.to(GPU)
        optimizer = build.build(cfg.optimizer)(module.model, 2)
        images = torch.empty(2, 3, 96, 128, dtype=torch.uint8, device=GPU)
        target = torch.empty(2, 96, 128, dtype=torch.uint8, device=GPU)
        crossings.found.clear()
        with torch.autocast("cuda", torch.bfloat16):
            total, _ = module.loss(module.model(module.normalize(images)), target, module.model.align_corners)
        for parameter in module.parameters():  # a backward pass wants a real GPU
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
    assert total.device.type == "cuda"
    assert crossings.found == []


def _kept(
    rows: range, source: int, target: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> tuple[range, Tensor]:
    return range(source), torch.empty(len(rows), source, dtype=dtype, device=device)
