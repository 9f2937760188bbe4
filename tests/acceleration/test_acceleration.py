"""Acceleration changes no number of a network, whatever its parts are."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig
from torch import Tensor, nn

from fastfcn_pl.acceleration.fold import FoldedNorm, fold
from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.acceleration.training import optimize_for_training
from fastfcn_pl.config import build
from fastfcn_pl.core.types import ModelOutput, UserError
from fastfcn_pl.engine import scoring
from fastfcn_pl.models.backbones.timm import TimmBackbone
from fastfcn_pl.models.heads.fcn import FCNHead
from fastfcn_pl.models.necks.none import NoNeck
from fastfcn_pl.models.segmenter import Segmenter
from tests.conftest import TINY
from tests.support.acceleration_parts import CONVS, FORMS, NORMS, Blocks, Head, blocks, network, seem_trained

CPU, LOW = torch.device("cpu"), torch.bfloat16
FOLDED = {"chain": 1, "called twice": 1, "reused activation": 1, "read before": 1, "read after": 1}
FOLDED |= {"asks for attributes": 1, "own use of statistics": 0}
"""Of a block's batch norms by its form, if its convolution and its norm are torch's own; 0 for all others."""


def _image(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def _assert_same(fast: Segmenter, model: Segmenter, *sizes: tuple[int, int]) -> None:
    with torch.no_grad():
        for size in sizes or ((67, 49), (32, 96)):
            expected, actual = model(_image(*size)).logits, fast(_image(*size)).logits
            limit = 1e-4 * expected.std()
            if (actual - expected).abs().max() >= limit:  # rounding alone may change a network with random weights more
                exact = copy.deepcopy(model).double()(_image(*size).double()).logits
                limit = 4 * (expected - exact).abs().max()
            assert (actual - expected).abs().max() < limit
            assert (actual.argmax(1) == expected.argmax(1)).float().mean() >= 0.999


def _folded(model: nn.Module) -> int:
    return sum(isinstance(module, FoldedNorm) for module in model.modules())


@given(head=st.lists(blocks, min_size=1, max_size=3), backbone=st.lists(blocks, max_size=2))
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_generated_networks(head: Blocks, backbone: Blocks) -> None:
    model = network(head, backbone)
    for fast in (optimize_for_inference(model, device=CPU), fold(model)):
        _assert_same(fast, model)


@pytest.mark.exhaustive
@given(head=st.lists(blocks, min_size=1, max_size=4), backbone=st.lists(blocks, max_size=3))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_generated_networks(head: Blocks, backbone: Blocks) -> None:
    model = network(head, backbone)
    for fast in (optimize_for_inference(model, device=CPU), fold(model)):
        _assert_same(fast, model)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_proved_is_folded_and_nothing_else(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = network([(form, "plain", "batch", "relu in place")])
    fast = fold(model)
    assert _folded(fast) == 1 + FOLDED.get(form, 0)  # the stem's, too
    assert capsys.readouterr().out == "", "it was proved, not actual by comparing"
    _assert_same(fast, model)


@pytest.mark.parametrize("conv", CONVS)
def test_convolutions_that_are_not_torchs_stay(conv: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = network([("chain", conv, "batch", "relu in place")])
    fast = optimize_for_inference(model, device=CPU)
    own = conv in ("plain", "bias", "reflect", "same", "depthwise", "dilated depthwise", "pointwise")
    assert _folded(fast) == 1 + own
    assert capsys.readouterr().out == ""
    _assert_same(fast, model)


@pytest.mark.parametrize("norm", NORMS)
def test_norms_that_are_not_torchs_stay(norm: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = network([("chain", "plain", norm, "relu")])
    fast = optimize_for_inference(model, device=CPU)
    assert _folded(fast) == 1 + (norm in ("batch", "not affine"))
    assert capsys.readouterr().out == ""
    _assert_same(fast, model)


class _Recorder:
    """A hook that is a method: a copy of the network would have a copy of it."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def see(self, name: str, *_: object) -> None:
        self.calls[name] += 1


def test_hooks_fire_as_on_the_plain_network(capsys: pytest.CaptureFixture[str]) -> None:
    model, recorder = network([("chain", "plain", "batch", "relu in place")]), _Recorder()
    for name, module in model.named_modules():
        module.register_forward_hook(partial(recorder.see, name))
        module.register_forward_pre_hook(partial(recorder.see, f"before {name}"))
    fast = optimize_for_inference(model, device=CPU)
    assert not recorder.calls, "no probe calls them"
    assert capsys.readouterr().out == (
        "Camera, NoNeck and Head run as they are, without acceleration: there is a hook on the network\n"
    )
    with torch.no_grad():
        fast(_image(64, 96))
        actual = recorder.calls.copy()
        recorder.calls.clear()
        model(_image(64, 96))
    assert actual == recorder.calls
    assert actual["head.blocks.0.conv"] == actual["before head.blocks.0.act"] == 1


def test_a_hook_that_changes_an_output_does() -> None:
    model = network([("chain", "plain", "batch", "relu in place")])
    model.head.blocks[0].conv.register_forward_hook(lambda module, inputs, output: output * 3 + 1)
    _assert_same(optimize_for_inference(model, device=CPU), model)


class _Unmoved(Head):
    """Blocks that are seen from outside: a tensor that one of them keeps is used by the head."""

    def forward(self, levels: list[Tensor]) -> Tensor:
        block = self.blocks[0]
        y = block.conv(levels[-1])
        for _ in range(int(levels[-1].shape[-1] > 0)):  # which no trace follows
            y = block.norm(y) + y
        return self.classifier(y)


@pytest.mark.parametrize("kind", ["reach into a block", "share a convolution", "share a weight", "a list of modules"])
def test_modules_that_are_used_from_elsewhere(kind: str) -> None:
    model = network([("chain", "plain", "batch", "relu in place")] * 2)
    first, second = model.head.blocks
    if kind == "reach into a block":
        model.head.__class__ = _Unmoved
    elif kind == "share a convolution":
        second.conv = first.conv
    elif kind == "share a weight":
        second.conv.weight = first.conv.weight
    else:
        model.head.blocks = nn.ModuleList([first])
        model.head.classifier = nn.Sequential(_Listed(first), model.head.classifier)
    fast = optimize_for_inference(model, device=CPU)
    _assert_same(fast, model)


class _Listed(nn.Module):
    """Uses the modules of another one, which are none of its own."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.modules_of_others = [block.conv, block.act]

    def forward(self, x: Tensor) -> Tensor:
        for module in self.modules_of_others:
            x = module(x)
        return x


class _Odd(Head):
    """Wrong in a way that nothing proves: it looks at what its own modules are."""

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = super().forward(levels)
        return x if type(self.blocks[0].norm) is nn.BatchNorm2d else x + 1


def test_what_differs_from_the_plain_network_is_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    model = network([("chain", "plain", "batch", "relu in place")])
    model.head.__class__ = _Odd
    fast = optimize_for_inference(model, device=CPU)
    line = capsys.readouterr().out
    assert line.startswith(
        "Camera, NoNeck and _Odd run as they are, without acceleration: accelerated, its logits are off"
    )
    assert line.count("\n") == 1
    _assert_same(fast, model)


def test_nothing_is_left_behind_by_the_comparison() -> None:
    model = network([("chain", "spectral norm", "batch", "relu in place")])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state, training = torch.get_rng_state(), {module: module.training for module in model.modules()}
    optimize_for_inference(model, device=CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert {module: module.training for module in model.modules()} == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16(form: str) -> None:
    model = network([(form, "plain", "batch", "relu in place")])
    with torch.no_grad():
        expected = model(_image(64, 96)).logits
        actual = optimize_for_inference(model, device=CPU, dtype=LOW)(_image(64, 96)).logits
        with torch.autocast("cpu", LOW):
            rounded = model(_image(64, 96)).logits
    assert (actual - expected).abs().max() <= 3 * (rounded - expected).abs().max()


def _is_plain(model: nn.Module) -> bool:
    return not any(type(module).__module__.startswith("fastfcn_pl.acceleration") for module in model.modules())


class _WithAuxiliaryLogits(Segmenter):
    """A user's own network, which uses the auxiliary head in prediction."""

    def forward(self, x: Tensor, extras: bool = False) -> ModelOutput:
        output = super().forward(x, extras=True)
        return ModelOutput(output.logits + output.extras["aux_logits"], {})


def test_a_subclass_of_the_network_keeps_what_it_uses() -> None:
    model = network([("chain", "plain", "batch", "relu in place")])
    model.__class__, model.aux_head = _WithAuxiliaryLogits, Head([], 5).eval()
    for fast in (optimize_for_inference(model, device=CPU), fold(model)):
        _assert_same(fast, model)
        assert _folded(fast) == 2


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_without_acceleration_it_is_the_plain_network(
    by: str, make_config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = make_config(*TINY, "data=shapes", "model/head=psp", f"accelerate={by != 'argument'}")
    if by == "environment":
        monkeypatch.setenv("FASTFCN_ACCELERATE", "0")
    model = build.model(cfg, 4).eval()
    for fast in (
        optimize_for_inference(model, device=CPU, accelerate=cfg.accelerate),
        fold(model, accelerate=cfg.accelerate),
    ):
        assert _is_plain(fast)
        _assert_same(fast, model)
    options = {"precision": "32-true", "channels_last": True, "accelerate": cfg.accelerate}
    assert optimize_for_training(model, device=torch.device("cuda"), **options) is torch.channels_last
    assert _is_plain(model)


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "export", "demo", "benchmark"])
def test_every_command_has_the_key(name: str, make_config: Callable[..., DictConfig]) -> None:
    assert make_config(name=name, run_dir=False).accelerate is True


@pytest.mark.slow
def test_the_final_score_is_that_of_the_validation(make_config: Callable[..., DictConfig]) -> None:
    cfg = make_config(*TINY, "data=shapes", "data.num_workers=0", "data.val_images=8", "data.size=64")
    datamodule = build.datamodule(cfg)
    module = build.module(cfg, datamodule.spec)
    gated = network([("gate", "plain", "batch", "relu in place")])
    module.model = gated
    gated.head.classifier = nn.Conv2d(8, datamodule.spec.num_classes, 1)
    gated.num_classes = datamodule.spec.num_classes
    trainer = build.trainer(cfg)
    trainer.validate(module, datamodule=datamodule, verbose=False)
    validated = module.scores.iou.tolist()
    results = scoring.score(trainer, module, datamodule, "val")
    np.testing.assert_allclose(module.scores.iou.tolist(), validated, atol=1e-3)
    assert results["mIoU"] is not None


def _with_backbone(name: str) -> Segmenter:
    torch.manual_seed(0)
    backbone = TimmBackbone(name=name, output_stride=32, pretrained=False)
    head = partial(FCNHead, level=-1, channels=8, dropout=0.1)
    levels = partial(Segmenter, 5, backbone=backbone, neck=NoNeck, aux_head=None, align_corners=False)
    return seem_trained(levels(head=lambda info, classes, align_corners: head(info, classes, align_corners)))


FAMILIES = ["mobilenetv3_small_050", "test_byobnet"]
SLOW = ["maxvit_rmlp_pico_rw_256", "xception41p", "edgenext_xx_small"]
MORE = [
    "xception41",
    "davit_tiny",
    "efficientnet_lite0",
    "regnety_002",
    "resnet18",
    "dla34",
    "densenet121",
    "hrnet_w18_small",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *FAMILIES,
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in MORE),
    ],
)
def test_families_of_backbones(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = _with_backbone(name)
    _assert_same(optimize_for_inference(model, device=CPU), model, (97, 131))
    assert capsys.readouterr().out == ""


_SMALL = ("test_", "atto", "femto", "pico", "nano", "tiny", "xx_small", "xxs", "small", "_18", "18", "b0", "lite")


@pytest.mark.exhaustive
@pytest.mark.parametrize("family", timm.list_modules())
def test_every_family(family: str) -> None:
    names = timm.list_models(module=family)
    for name in sorted(names, key=lambda name: (not any(word in name for word in _SMALL), len(name)))[:3]:
        try:
            model = _with_backbone(name)
        except UserError:
            continue
        _assert_same(optimize_for_inference(model, device=CPU), model, (97, 131))
        return
    pytest.skip("none of its small networks serves")
