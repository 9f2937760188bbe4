"""A neck fitted to the dilated twin of its backbone: the twin is right, and only the neck is fitted to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.config import build
from fastfcn_pl.core.types import UserError
from fastfcn_pl.evaluation.approximation import FeatureSums, approximation_scores, image_table
from fastfcn_pl.losses.approximation import CosineDistance, RelativeMSE
from fastfcn_pl.models.approximation import Approximation
from fastfcn_pl.models.backbones.timm import TimmBackbone
from tests.conftest import TINY, composed
from tests.fakes.network import fill_statistics

DILATED = [
    *("test_resnet", "test_efficientnet", "test_convnext", "mobilenetv3_small_050", "lcnet_035", "regnetx_002"),
    *("tf_efficientnet_lite0", "resnet18d", "resnetblur18"),
]


def _model(*overrides: str) -> Approximation:
    torch.manual_seed(0)
    model = build.model(composed("model=approximation", *TINY, *overrides), 5)
    assert isinstance(model, Approximation)
    fill_statistics(model)
    return model


def _backbone(name: str, output_stride: int) -> TimmBackbone:
    return TimmBackbone(name=name, output_stride=output_stride, pretrained=False)


@pytest.mark.parametrize("size", [(64, 96), (97, 129)], ids=str)
def test_the_twin_of_a_resnet_has_the_strided_features_at_every_fourth_pixel(size: tuple[int, int]) -> None:
    """The algorithme à trous: a strided network computes a subset of the pixels of its dilated twin."""
    model = _model("model.backbone.name=resnet18")
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        strided, dilated = model.backbone.eval()(x)[-1], model.twin_features(x)
    assert dilated.shape[-2:] == tuple(-(-length // 8) for length in size)
    torch.testing.assert_close(dilated[..., ::4, ::4], strided)


@pytest.mark.slow
@pytest.mark.parametrize("name", DILATED)
def test_the_twin_is_the_backbone_that_timm_dilates_with_the_same_weights(name: str) -> None:
    model = _model(f"model.backbone.name={name}")
    dilated, x = _backbone(name, 8).eval(), torch.randn(1, 3, 96, 128)
    dilated.load_state_dict(model.backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model.twin_features(x), dilated(x)[-1])


def test_the_twin_follows_the_weights_and_has_none_of_its_own() -> None:
    model, x = _model(), torch.randn(1, 3, 64, 64)
    assert not [name for name in model.state_dict() if "twin" in name]
    before = model.twin_features(x)
    other = _model()
    with torch.no_grad():
        for parameter in other.backbone.parameters():
            parameter.normal_(0, 0.1)
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model.twin_features(x), other.twin_features(x))
    assert not torch.equal(model.twin_features(x), before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.backbone.name=pvt_v2_b0"], "pvt_v2_b0 does not serve: timm cannot build it with output_stride=8"),
        (
            ["model/backbone=vit_pyramid", "model.backbone.name=test_vit"],
            "ViTPyramid cannot be dilated: take a convolutional one",
        ),
    ],
)
def test_a_backbone_without_a_dilated_twin_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _model(*overrides)
    assert "\n" not in str(caught.value)


def test_a_twin_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimmBackbone, "dilated_twin", lambda self: _backbone("test_efficientnet", 8))
    with pytest.raises(UserError, match="TimmBackbone has other weights when it is dilated"):
        _model()


@pytest.mark.slow
@pytest.mark.parametrize("neck", ["jpu", "jpu_x", "fpn", "bilinear", "none", "dilated16", "dilated", "semantic_fpn"])
def test_each_neck_is_compared_at_stride_8(neck: str) -> None:
    widths = [] if neck in ("bilinear", "none", "dilated16", "dilated") else ["model.neck.width=8"]
    groups = ["model.neck.groups=4"] if neck == "jpu_x" else []
    tiny = [override for override in TINY if "neck" not in override]
    model = build.model(composed("model=approximation", *tiny, f"model/neck={neck}", *widths, *groups), 5)
    output = model(torch.randn(2, 3, 97, 129))
    assert tuple(output.named()) == model.outputs == ("logits", "aux_logits", "approximation")
    channels = model.backbone.out_info.channels[-1]
    assert output.extras["approximation"].shape == (2, 2, channels, 13, 17)
    assert output.logits.shape == (2, 5, 13, 17)


def test_the_twins_own_features_have_no_error() -> None:
    """The dilated neck passes them on, and its 1x1 convolution is set to the identity."""
    tiny = [override for override in TINY if "neck" not in override]
    model = build.model(composed("model=approximation", *tiny, "model/neck=dilated"), 5)
    fill_statistics(model)
    nn.init.dirac_(model.neck.project.weight)
    nn.init.zeros_(model.neck.project.bias)
    features = model(torch.randn(2, 3, 64, 64)).extras["approximation"].detach()
    assert RelativeMSE()(features, torch.empty(0), True) < 1e-10
    assert CosineDistance()(features, torch.empty(0), True).abs() < 1e-6
    images = [FeatureSums.of(features[0, i], features[1, i], i) for i in range(2)]
    assert approximation_scores(image_table(images).sum(0)) == pytest.approx([1, 1], abs=1e-9)


def test_heads_do_not_move_the_neck_and_nothing_moves_the_backbone() -> None:
    model = _model()
    statistics = {name: buffer.clone() for name, buffer in model.backbone.named_buffers()}
    output = model.train()(torch.randn(2, 3, 64, 64))
    (output.logits.sum() + output.extras["aux_logits"].sum()).backward(retain_graph=True)
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"head", "aux_head"}
    model.zero_grad()
    output.extras["approximation"].sum().backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"neck"}
    for name, buffer in model.backbone.named_buffers():
        assert torch.equal(buffer, statistics[name]), name


@pytest.mark.slow
def test_fitting_lowers_the_error() -> None:
    model, x = _model(), torch.randn(4, 3, 64, 64)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    errors = []
    for _ in range(30):
        features = model(x).extras["approximation"]
        losses = [loss(features, torch.empty(0), True) for loss in (RelativeMSE(), CosineDistance())]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        errors.append([loss.item() for loss in losses])
    assert errors[-1][0] < 0.7 * errors[0][0]
    assert errors[-1][1] < 0.7 * errors[0][1]


@pytest.mark.slow
def test_it_predicts_accelerated(capsys: pytest.CaptureFixture[str]) -> None:
    model, x = _model().eval(), torch.randn(1, 3, 64, 64)
    fast = optimize_for_inference(model, device=torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(fast(x).logits, model(x).logits, rtol=1e-3, atol=1e-4)
    assert capsys.readouterr().out == ""
    assert fast(x).extras == {}
