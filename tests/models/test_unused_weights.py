"""Weights that nothing depends on are found and frozen, and no others."""

from __future__ import annotations

import pytest
import torch

from fastfcn_pl.config import build
from fastfcn_pl.models.unused_weights import freeze_unused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["model.backbone.name=hrnet_w18_small", "model/neck=jpu"], 21),
        (["model.backbone.name=hrnet_w18_small", "model/neck=none", "model/head=uper"], 0),
        (["model.backbone.name=test_resnet", "model/head=encnet"], 0),
    ],
)
def test_every_weight_that_is_trained_gets_a_gradient(words: list[str], count: int) -> None:
    cfg = build.compose(["model=fastfcn", "model.backbone.pretrained=false", "model.head.channels=32", *words])
    torch.manual_seed(0)
    model = build.model(cfg, 5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    unused = freeze_unused(model)
    assert len(unused) == count
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    sum(value.sum() for value in model(torch.randn(2, 3, 64, 64)).named().values()).backward()
    assert {name for name, p in model.named_parameters() if p.grad is None} == set(unused)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == set(unused)


@pytest.mark.slow
def test_a_network_that_cannot_run_on_the_meta_device_keeps_all_weights() -> None:
    class Head(torch.nn.Conv2d):
        def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
            return super().forward(levels[-1]) * levels[-1].sum().item()

    cfg = build.compose(["model=fastfcn", "model/aux_head=none", "model.backbone.pretrained=false"])
    cfg.model.backbone.name, cfg.model.neck.width = "test_resnet", 8
    model = build.model(cfg, 5)
    model.head, model.head_outputs = Head(model.neck.out_info.channels[-1], 5, 1), None
    assert freeze_unused(model) == []
    assert all(p.requires_grad for p in model.parameters())
