"""The composed network: extras when asked, sizes that are odd, necks that refuse what they cannot use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from fastfcn_pl.contracts import FeatureInfo, UserError
from fastfcn_pl.inference import logits
from fastfcn_pl.models.cost import cost
from fastfcn_pl.models.necks.dilated import Dilated
from fastfcn_pl.models.necks.jpu import JPU
from fastfcn_pl.models.segmenter import Segmenter
from tests.conftest import TINY

SMALL = [o for o in TINY if not o.startswith("model.neck")]
NECKS = {"jpu": 8, "none": 32, "dilated": 8}


def _model(cfg: DictConfig, num_classes: int = 5) -> Segmenter:
    return instantiate(cfg.model, num_classes, _convert_="all")


@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("aux", ["fcn", "none"])
def test_logits_come_at_the_necks_stride(neck: str, aux: str, make_config: Callable[..., DictConfig]) -> None:
    small = [o for o in SMALL if aux != "none" or "aux_head" not in o]
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


def test_necks_refuse_levels_they_cannot_use() -> None:
    with pytest.raises(UserError, match=r"strides \(16, 16, 16\): use a pyramid"):
        JPU(FeatureInfo((8, 8, 8), (16, 16, 16)), True, width=8, dilations=[1])
    with pytest.raises(UserError, match=r"model/neck=dilated wants a dilated backbone"):
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


def test_dropout_and_norms_follow_the_mode(make_config: Callable[..., DictConfig]) -> None:
    model = _model(make_config(*TINY))
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout2d)} == {0.1}
    x = torch.randn(2, 3, 64, 64)
    model.eval()
    assert torch.equal(model(x).logits, model(x).logits)
