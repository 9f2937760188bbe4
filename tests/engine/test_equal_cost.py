"""Widths of equal cost: the closest one of all, for each neck and each kind of cost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from fastfcn_pl.config import build, schema
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import equal_cost
from fastfcn_pl.engine.equal_cost import Choice, choose, closest_width
from fastfcn_pl.models.cost import cost, training_mib
from fastfcn_pl.models.segmenter import Segmenter
from tests.support.grids import sample

NECKS = sorted(path.stem for path in (schema.CONF_DIR / "model" / "neck").glob("*.yaml"))
MORE = {"jpu_x": ["model.neck.groups=4"], "jpu_x_128": ["model.neck.groups=4"]}
"""Keys without which a neck's widths are too coarse: half of JPU-X's width is a multiple of its groups."""
COARSE = {"alignseg": 0.05}
"""Necks whose cost grows by more than 6 % with each multiple of 8 in this small network."""
NET = ["model.backbone.name=test_resnet", "model.backbone.pretrained=false", "model.head.channels=16"]
SIZES = ["size=[64,64]", "training.size=[64,64]", "num_classes=5", "device=cpu"]
Make = Callable[..., DictConfig]


def _choose(make_config: Make, what: str, *overrides: str, of: tuple[str, ...] = ("model/neck=jpu_128",)) -> Choice:
    cfg, reference = (make_config(*NET, *SIZES, *options, name="benchmark") for options in (overrides, of))
    model, other = (OmegaConf.to_container(network.model, resolve=True) for network in (cfg, reference))
    return choose(cfg, model, other, what)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_the_closest_width_is_found(seed: int) -> None:
    numbers = random.Random(seed)
    smallest, base, power = numbers.choice([8, 16, 64]), numbers.uniform(0, 1.5), numbers.choice([1, 1.5, 2])
    target = numbers.uniform(8, 900)

    def ratio(width: int) -> float:
        return base + (width / target) ** power

    expected = min(range(smallest, 4097, smallest), key=lambda width: abs(ratio(width) - 1))
    assert closest_width(ratio, smallest) == (expected, ratio(expected))


def test_a_cost_that_is_never_reached_is_approached() -> None:
    assert closest_width(lambda width: width / 1e6, 8)[0] == 4096
    assert closest_width(lambda width: 2 + width, 8)[0] == 8


@pytest.mark.slow
@pytest.mark.parametrize("what", sample(["gmacs", "train_memory"], "gmacs"))
@pytest.mark.parametrize("neck", sample(["fpn", "jpu_x"], "fpn"))
def test_a_width_is_the_closest_of_all(what: str, neck: str, make_config: Make) -> None:
    options = [f"model/neck={neck}", *MORE.get(neck, [])]
    chosen = _choose(make_config, what, *options, of=("model/neck=jpu", "model.neck.width=24"))
    cfg = make_config(*NET, *options)
    costs = {}
    for width in range(8, 97, 8):
        cfg.model.neck.width = width
        network = build.model(cfg, 5)
        costs[width] = cost(network, (64, 64))["total"].gmacs if what == "gmacs" else training_mib(network, 2, (64, 64))
    assert chosen.width == min(costs, key=lambda width: abs(costs[width] - chosen.reference))
    assert chosen.cost == pytest.approx(costs[chosen.width])
    assert chosen.ratio == pytest.approx(chosen.cost / chosen.reference)


@pytest.mark.slow
@pytest.mark.parametrize("neck", sample(NECKS, "bilinear", "fpn", "jpu_x_128"))
def test_each_neck_costs_what_the_reference_does(neck: str, make_config: Make) -> None:
    chosen = _choose(make_config, "gmacs", f"model/neck={neck}", *MORE.get(neck, []))
    if chosen.width is None:
        assert neck in ("bilinear", "none", "dilated", "dilated16")
        assert chosen.ratio != 1
    else:
        assert chosen.width % 8 == 0
        assert chosen.ratio == pytest.approx(1, abs=COARSE.get(neck, 0.03))


@pytest.mark.slow
def test_the_reference_keeps_its_width(make_config: Make) -> None:
    own = ("model/neck=jpu", "model.neck.width=20")
    chosen = _choose(make_config, "gmacs", *own, of=own)
    assert (chosen.width, chosen.ratio) == (20, 1.0)


@pytest.mark.slow
def test_latency_is_that_of_a_machine_that_becomes_slower(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both networks are timed in turns. The time is faked: parameters, times a slowness that grows with each call."""
    slowness = itertools.count(100)
    networks: list[Segmenter] = []

    def timed(run: Callable[[], object], parts: object, device: torch.device, repeats: int, warm_up: int) -> Any:
        run()
        size = sum(p.numel() for p in networks.pop().parameters())
        return {"total": [1e-7 * size * next(slowness) for _ in range(repeats)]}

    class Optimized(nn.Module):
        def __init__(self, network: Segmenter) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> None:
            networks.append(self.network)

    monkeypatch.setattr(equal_cost, "timings", timed)
    monkeypatch.setattr(equal_cost, "optimize_for_inference", lambda network, **_: Optimized(network))
    chosen = _choose(make_config, "latency", "model/neck=fpn", of=("model/neck=jpu", "model.neck.width=24"))
    cfg, sizes = make_config(*NET, "model/neck=fpn"), {}
    for width in range(8, 97, 8):
        cfg.model.neck.width = width
        sizes[width] = sum(p.numel() for p in build.model(cfg, 5).parameters())
    cfg = make_config(*NET, "model/neck=jpu", "model.neck.width=24")
    target = sum(p.numel() for p in build.model(cfg, 5).parameters())
    assert chosen.width == min(sizes, key=lambda width: abs(sizes[width] - target))


@pytest.mark.exhaustive
def test_latency_of_real_networks_is_close_twice_in_a_row(make_config: Make) -> None:
    larger = [*NET, *SIZES[1:], "size=[128,128]"]
    cfg, reference = (make_config(*larger, f"model/neck={neck}", name="benchmark") for neck in ("fpn", "jpu_128"))
    model, other = (OmegaConf.to_container(network.model, resolve=True) for network in (cfg, reference))
    for _ in range(2):
        chosen = choose(cfg, model, other, "latency")  # type: ignore[arg-type]
        model["neck"]["width"] = chosen.width  # type: ignore[index, call-overload]
        later = equal_cost.Latency(equal_cost.Conditions.of(cfg), other)  # type: ignore[arg-type]
        assert later.ratio(model) == pytest.approx(1, abs=0.08)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["training=null"], "match.what=train_memory needs the size of a training step"),
        (["+model.neck.widht=8"], "model.neck.widht"),
    ],
)
def test_a_mistake_is_one_line(overrides: list[str], line: str, make_config: Make) -> None:
    sizes = [override for override in SIZES if not override.startswith("training")]
    cfg = make_config(*NET, *sizes, *overrides, name="benchmark")
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    with pytest.raises(UserError, match=line):
        choose(cfg, model, {**model, "align_corners": False}, "train_memory")


def test_a_run_is_measured_at_the_size_of_its_crops(make_config: Make) -> None:
    conditions = equal_cost.Conditions.of(make_config(*NET, "data=shapes", "data.size=96", "trainer.accelerator=cpu"))
    assert (conditions.predicted, conditions.trained) == ([1, 96, 96], [16, 96, 96])
    cropped = [*NET, "data=camvid", "data.augmentation.crop_size=[64,80]", "data.batch_size=3"]
    conditions = equal_cost.Conditions.of(make_config(*cropped))
    assert (conditions.predicted, conditions.trained, conditions.num_classes) == ([1, 64, 80], [3, 64, 80], 11)
