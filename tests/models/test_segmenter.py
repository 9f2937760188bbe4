"""The composed network: extras when asked, sizes that are odd, necks that refuse what they cannot use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.evaluation.protocols import logits
from fastfcn_pl.models.cost import cost, latency
from fastfcn_pl.models.necks.dilated import Dilated
from fastfcn_pl.models.necks.jpu import JPU
from fastfcn_pl.models.necks.jpu_x import JPUX
from fastfcn_pl.models.segmenter import Segmenter
from tests.conftest import TINY

SMALL = [o for o in TINY if not o.startswith("model.neck")]
NECKS = {"jpu": 8, "jpu_x": 8, "fpn": 8, "bilinear": 8, "none": 32, "dilated": 8}


def _model(cfg: DictConfig, num_classes: int = 5) -> Segmenter:
    return instantiate(cfg.model, num_classes, _convert_="all")


@pytest.mark.parametrize(("neck", "aux"), [*((neck, "fcn") for neck in NECKS), ("jpu", "none")])
def test_logits_come_at_the_necks_stride(neck: str, aux: str, make_config: Callable[..., DictConfig]) -> None:
    small = [o for o in SMALL if aux != "none" or "aux_head" not in o]
    if neck in ("jpu", "jpu_x", "fpn"):
        small = [*small, "model.neck.width=8", *(["model.neck.groups=4"] if neck == "jpu_x" else [])]
    model = _model(make_config(*small, f"model/neck={neck}", f"model/aux_head={aux}"))
    x, stride = torch.randn(2, 3, 97, 129), NECKS[neck]
    output = model.train()(x)
    assert output.logits.shape == (2, 5, -(-97 // stride), -(-129 // stride))
    assert tuple(output.named()) == model.outputs == (("logits",) if aux == "none" else ("logits", "aux_logits"))
    sum(value.mean() for value in output.named().values()).backward()
    assert all(p.grad is not None for p in model.parameters()), "a parameter that no output uses"
    assert model.eval()(x).extras == {}
    assert tuple(model(x, extras=True).named()) == model.outputs
    assert logits(model, x).shape == (2, 5, 97, 129)


def test_jpu_is_the_papers() -> None:
    """Parameters as in the official code, order of concatenation C5, C4, C3 (encoding/nn/customize.py)."""
    info = FeatureInfo((256, 512, 1024, 2048), (4, 8, 16, 32))
    with torch.device("meta"):
        neck = JPU(info, True, width=512, dilations=[1, 2, 4, 8])
    assert sum(p.numel() for p in neck.parameters()) == 19_735_552
    assert neck.out_info == FeatureInfo((256, 512, 1024, 2048, 2048), (4, 8, 16, 32, 8))

    small = JPU(FeatureInfo((2, 3, 4), (8, 16, 32)), True, width=4, dilations=[1]).eval()
    seen: list[torch.Tensor] = []
    small.branches[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    levels = [torch.randn(1, c, 32 // s, 32 // s) for c, s in ((2, 8), (3, 16), (4, 32))]
    small(levels)
    assert torch.equal(seen[0][:, 8:], small.convs[0](levels[0]))
    assert torch.equal(seen[0][:, :4], small.convs[2](levels[2]).expand(-1, -1, 4, 4))


@pytest.mark.parametrize("se_loss", [True, False])
def test_se_logits_come_with_their_layer_only(se_loss: bool, make_config: Callable[..., DictConfig]) -> None:
    model = _model(make_config(*TINY, "model/head=encnet", f"model.head.se_loss={str(se_loss).lower()}"))
    expected = ("logits", "aux_logits", "se_logits") if se_loss else ("logits", "aux_logits")
    assert tuple(model.train()(torch.randn(2, 3, 64, 64)).named()) == model.outputs == expected
    assert model.eval()(torch.randn(1, 3, 64, 64)).extras == {}


@pytest.mark.parametrize("neck", ["jpu", "jpu_x"])
def test_a_dilated_backbone_is_joined_at_its_one_size(neck: str, make_config: Callable[..., DictConfig]) -> None:
    small = [*TINY, f"model/neck={neck}", *(["model.neck.groups=4"] if neck == "jpu_x" else [])]
    model = _model(make_config(*small, "model.backbone.output_stride=8")).eval()
    assert model.neck.out_info.strides == (4, 8, 8, 8, 8)
    assert model(torch.randn(1, 3, 65, 97)).logits.shape == (1, 5, 9, 13)


def test_necks_refuse_levels_they_cannot_use() -> None:
    with pytest.raises(UserError, match=r"strides \(16, 16, 16\): use a pyramid"):
        JPU(FeatureInfo((8, 8, 8), (16, 16, 16)), True, width=8, dilations=[1])
    with pytest.raises(UserError, match=r"model\.neck\.width=48: half of it"):
        JPUX(FeatureInfo((8, 8, 8), (8, 16, 32)), True, width=48, dilations=[1], groups=32)
    with pytest.raises(UserError, match=r"model/neck=dilated needs a dilated backbone"):
        Dilated(FeatureInfo((8, 8, 8), (8, 16, 32)), True)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model/neck=jpu"], {"backbone": 28.4, "neck": 30.0, "head": 38.8, "aux_head": 0}),
        (["model/neck=dilated"], {"backbone": 106.8, "neck": 0, "head": 38.8}),
        (["model/neck=dilated", "model.backbone.output_stride=16"], {"backbone": 39.5}),
    ],
)
def test_cost_is_that_of_the_published_network(
    overrides: list[str], parts: dict[str, float], make_config: Callable[..., DictConfig]
) -> None:
    """GMACs at 512x512 of the official ResNet-50 networks, counted from their code, within 1 %."""
    with torch.device("meta"):
        model = _model(make_config(*overrides, "model.backbone.pretrained=false"), num_classes=59)
    costs = cost(model, (512, 512))
    for part, gmacs in parts.items():
        assert costs[part].gmacs == pytest.approx(gmacs, rel=0.01)
    assert costs["total"].gmacs == pytest.approx(sum(costs[p].gmacs for p in ("backbone", "neck", "head")))
    assert costs["total"].parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "part", "gmacs"),
    [
        (["model/neck=jpu_x"], "neck", 37.2),
        (["model/head=psp"], "head", 77.5),
        (["model/head=aspp"], "head", 64.0),
        (["model/head=encnet"], "head", 5.5),
        (["model/head=encnet", "model.head.kernel_size=3"], "head", 39.9),
        (["model/backbone=resnet101s"], "backbone", 47.8),
        (["model/backbone=resnet101s", "model.backbone.output_stride=16", "model/neck=none"], "backbone", 58.9),
        (["model/backbone=resnet101s", "model/neck=dilated"], "backbone", 184.3),
    ],
)
def test_cost_of_the_other_parts(
    overrides: list[str], part: str, gmacs: float, make_config: Callable[..., DictConfig]
) -> None:
    with torch.device("meta"):
        model = _model(make_config(*overrides, "model.backbone.pretrained=false"), num_classes=59)
    assert cost(model, (512, 512))[part].gmacs == pytest.approx(gmacs, rel=0.01)


def test_peak_memory_is_of_the_tensors_that_live_at_once() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.narrow(self.wide(x))

    costs = cost(Net(), (256, 256))
    assert costs["wide"].peak_mib == pytest.approx(16)  # 64 x 256 x 256 x 4 bytes
    assert costs["narrow"].peak_mib == pytest.approx(2)
    assert costs["total"].peak_mib == pytest.approx(18)


def test_latency_is_measured_of_each_part(make_config: Callable[..., DictConfig]) -> None:
    model = _model(make_config(*TINY)).train()
    seconds = latency(model, torch.randn(1, 3, 64, 64), repeats=3)
    assert set(seconds) == {"backbone", "neck", "head", "total"}  # the auxiliary head does not run
    assert seconds["total"] >= max(seconds[part] for part in ("backbone", "neck", "head")) > 0
    assert model.training
    assert not model.backbone._forward_hooks


def test_dropout_and_norms_follow_the_mode(make_config: Callable[..., DictConfig]) -> None:
    model = _model(make_config(*TINY))
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout2d)} == {0.1}
    x = torch.randn(2, 3, 64, 64)
    model.eval()
    assert torch.equal(model(x).logits, model(x).logits)
