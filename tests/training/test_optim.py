"""Parameter groups, their table, and the poly schedule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from timm.optim import param_groups_layer_decay
from torch import nn

from fastfcn_pl.config import build
from fastfcn_pl.core.types import ParameterDepths, UserError
from fastfcn_pl.training.optim import optimizer
from fastfcn_pl.training.parameter_table import print_parameters
from tests.conftest import TINY


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


BACKBONES = ["test_resnet", "convnext_atto", "tf_efficientnet_lite0", "swin_tiny_patch4_window7_224"]


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_layer_decay_is_timms(name: str, make_config: Callable[..., DictConfig]) -> None:
    """Rate and weight decay of each tensor against `timm.optim.param_groups_layer_decay` of the whole network."""
    options = [f"model.backbone.name={name}", "optimizer.layer_decay=0.65", "optimizer.decay_norm_and_bias=false"]
    cfg = make_config(*TINY, "optimizer=adamw", *options)
    with torch.device("meta"):
        model, whole = build.model(cfg, 5), timm.create_model(name)
    theirs = {}
    for group in param_groups_layer_decay(whole, 0.01, getattr(whole, "no_weight_decay", tuple)(), layer_decay=0.65):
        theirs |= {id(p): (pytest.approx(2e-4 * group["lr_scale"]), group["weight_decay"]) for p in group["params"]}
    expected = {_bare(name): theirs[id(p)] for name, p in whole.named_parameters()}
    names = {id(p): name for name, p in model.named_parameters()}
    head = {0.01: 0, 0.0: 0}
    for group in build.build(cfg.optimizer)(model, 16).param_groups:
        for parameter in group["params"]:
            if names[id(parameter)].startswith("backbone."):
                own = _bare(names[id(parameter)].removeprefix("backbone.net."))
                assert (group["lr"], group["weight_decay"]) == expected[own]
            else:
                assert group["lr"] == 2e-3
                head[group["weight_decay"]] += 1
    assert all(head.values())


def _bare(name: str) -> str:
    """Return a name as it is in the whole network and in its features."""
    return name.replace(".", "").replace("_", "")


def test_an_own_backbone_says_how_deep_its_layers_are() -> None:
    net, algorithm = _net(), partial(torch.optim.AdamW, weight_decay=0.1)
    options = {"lr": 1.0, "head_lr_ratio": 2, "base_batch_size": None, "algorithm": algorithm, "layer_decay": 0.5}
    with pytest.raises(UserError, match=r"^optimizer\.layer_decay=0\.5: Linear does not say how deep its layers are"):
        optimizer(net, 16, **options)  # type: ignore[arg-type]
    net["backbone"].parameter_depths = lambda: ParameterDepths({"weight": 0}, top=3)  # type: ignore[assignment]
    rates = {group["name"]: group["lr"] for group in optimizer(net, 16, **options).param_groups}  # type: ignore[arg-type]
    assert rates == {"backbone_00": 0.125, "backbone_03": 1.0, "head": 2.0}


@pytest.mark.parametrize("value", [0.0, 1.5, -1.0])
def test_a_layer_decay_without_a_meaning_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="use a number above 0, up to 1, or null"):
        optimizer(_net(), 16, lr=1, head_lr_ratio=1, base_batch_size=None, algorithm=torch.optim.SGD, layer_decay=value)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "lamb", "muon"])
def test_every_optimizer_fits_a_line(name: str, make_config: Callable[..., DictConfig]) -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"backbone": nn.Linear(8, 8), "head": nn.Linear(8, 8)})
    built = instantiate(make_config(f"optimizer={name}", "optimizer.lr=0.003").optimizer)(net, 16)
    x, losses = torch.randn(64, 8), []
    for _ in range(60):
        built.zero_grad()
        loss = (net["head"](net["backbone"](x)) - x).square().mean()
        loss.backward()
        built.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_muon_leaves_norms_and_position_embeddings_to_adamw(make_config: Callable[..., DictConfig]) -> None:
    net = nn.ModuleDict({"backbone": nn.Linear(8, 8), "head": nn.Linear(8, 8)})
    net["backbone"].no_weight_decay = lambda: {"weight"}  # type: ignore[assignment]
    built = instantiate(make_config("optimizer=muon").optimizer)(net, 16)
    net["head"](net["backbone"](torch.randn(4, 8))).sum().backward()
    built.step()
    by_muon = {name: built.state[parameter]["use_muon"] for name, parameter in net.named_parameters()}
    assert by_muon == {"backbone.weight": False, "backbone.bias": False, "head.weight": True, "head.bias": False}


def test_the_table_of_parameters_fits_a_terminal(
    make_config: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = ["optimizer=adamw", "optimizer.layer_decay=0.65", "optimizer.decay_norm_and_bias=false"]
    cfg = make_config(*TINY, *options)
    model = build.model(cfg, 5)
    model.neck.requires_grad_(False)
    print_parameters(model, build.build(cfg.optimizer)(model, 16))
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert [row[0] for row in rows] == ["backbone", "backbone_no_decay", "head", "head_no_decay", "frozen"]
    assert [row[1] for row in rows] == ["5", "5", "-", "-", "-"]
    assert sum(int(row[2].replace(",", "")) for row in rows) == sum(p.numel() for p in model.parameters())
    assert rows[0][3:] == ["2.32e-05 to 0.00013", "0.01"]
    assert rows[4][2:] == [f"{sum(p.numel() for p in model.neck.parameters()):,}", "-", "-"]
