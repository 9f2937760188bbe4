"""Files of each format compute the network's results at all kinds of sizes; a full disk is reported in one line."""

from __future__ import annotations

import math
import resource
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from fastfcn_pl.acceleration.fold import ImageSegmenter
from fastfcn_pl.config import build
from fastfcn_pl.core import atomic_io
from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.evaluation.protocols import logits
from fastfcn_pl.tools.export import formats, writers
from fastfcn_pl.training.module import SegmentationModule
from tests.conftest import TINY
from tests.fakes.network import example_images, fill_statistics

SIZES = [(1, 97, 129), (3, 65, 97), (1, 64, 128), (3, 96, 96), (1, 224, 352)]
SMALL = ["data=shapes", "model.head.channels=8", "model.aux_head.channels=8"]
FAMILIES = [
    *("test_byobnet", "test_convnext", "cpubone_nano", "cs3darknet_s", "cspnext_tiny", "davit_tiny", "densenet121"),
    *("dla46_c", "dpn48b", "edgenext_xx_small", "test_efficientnet", "efficientvit_b0", "fasternet_t0", "fastvit_t8"),
    *("focalnet_tiny_srf", "ghostnet_050", "hardcorenas_a", "hgnetv2_b0", "sam2_hiera_tiny", "hrnet_w18_small"),
    *("iformer_t", "inception_next_atto", "lcnetv2_small", "lowformer_b0", "test_mambaout", "test_maxvit"),
    *("poolformer_s12", "caformer_s18", "tf_mobilenetv3_small_minimal_100", "mobilevit_xxs", "mobilevitv2_050"),
    *("nextvit_small", "test_nfnet", "pvt_v2_b0", "rdnet_tiny", "regnetx_002", "repghostnet_050"),
    *("repvit_m0_9", "res2net50_14w_8s", "resnest14d", "test_resnet", "resnetv2_18", "rexnet_100", "selecsls42"),
    *("legacy_seresnet18", "skresnet18", "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224"),
    *("swinv2_tiny_window8_256", "swinv2_cr_tiny_ns_224", "tiny_vit_5m_224", "tresnet_m", "twins_svt_small", "vgg11"),
    *("ese_vovnet19b_slim", "xception41"),
]
"""A small member of each timm family that serves as a backbone."""
NOT_AT_EVERY_SIZE = {"mobilevit_xxs", "mobilevitv2_050"}
"""Their code computes sizes in Python: a trace has those of its example, and `export` refuses the file."""


def _module(make_config: Callable[..., DictConfig], *overrides: str) -> SegmentationModule:
    keys = [key for key in TINY if "neck" not in key] if "model/neck=none" in overrides else TINY
    cfg = make_config(*keys, *SMALL, *overrides)
    torch.manual_seed(0)
    module = build.module(cfg, build.datamodule(cfg).spec).eval()
    fill_statistics(module.model)
    return module


def differences(
    module: SegmentationModule, form: str, path: Path, accelerate: bool = True
) -> list[tuple[float, float]]:
    """Export a module; return the share of equal labels and the relative difference of logits for each size."""
    if form in ("openvino", "executorch"):
        pytest.importorskip(form)
    network = ImageSegmenter(module.model, module.mean, module.std, "logits", accelerate).eval()
    writers.write(network, form, path, example_images(), max_size=352)
    run, found = formats.runner(path), []
    for batch, height, width in SIZES:
        images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
        with torch.no_grad():
            expected, result = logits(module.model, module.normalize(images)), run(images)
        equal = (result.argmax(1) == expected.argmax(1)).double().mean()
        found.append((float(equal), float((result - expected).abs().max() / expected.std())))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "overrides"),
    [
        ("onnx", ["model.backbone.name=test_convnext"]),
        ("onnx", ["model.backbone.name=test_mambaout", "model/head=encnet"]),
        ("torchscript", ["model.backbone.name=test_convnext"]),
        *(
            pytest.param(form, ["model.backbone.name=test_convnext", *head], marks=pytest.mark.slow)
            for form in ("openvino", "executorch")
            for head in ([], ["model/head=encnet"])
        ),
        ("onnx", ["model/backbone=vit_pyramid", "model.backbone.name=test_vit", "model.backbone.width=8"]),
        pytest.param("torch_export", ["model.backbone.name=test_convnext"], marks=pytest.mark.slow),
        pytest.param("onnx", ["model.backbone.name=swin_tiny_patch4_window7_224"], marks=pytest.mark.exhaustive),
        pytest.param("torch_export", ["model.backbone.name=hrnet_w18_small"], marks=pytest.mark.exhaustive),
        pytest.param("torch_export", ["model.backbone.name=densenet121"], marks=pytest.mark.exhaustive),
    ],
)
def test_a_file_computes_what_the_network_does_at_any_size(
    form: str, overrides: list[str], make_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    head = [] if any("model/head" in o for o in overrides) else ["model/head=uper"]
    module = _module(make_config, "model/neck=none", *head, *overrides)
    for equal, difference in differences(module, form, tmp_path / f"net{formats.SUFFIXES[form]}"):
        assert equal >= 0.999
        assert difference < 1e-4


@pytest.mark.slow
def test_the_network_as_it_is_written_is_exported_too(make_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    for equal, difference in differences(_module(make_config, "model/head=psp"), "onnx", tmp_path / "net.onnx", False):
        assert equal >= 0.999
        assert difference < 1e-4


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_timm_is_exported_equal_or_seen_to_differ(
    name: str, make_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    module = _module(make_config, f"model.backbone.name={name}", "model.neck.width=8")
    try:
        largest = max(difference for _, difference in differences(module, "onnx", tmp_path / "net.onnx"))
    except Exception:  # onnxruntime's, of a file that does not run at a size
        largest = math.inf
    assert (largest > 1e-3) if name in NOT_AT_EVERY_SIZE else (largest < 1e-4)


class OwnHead(nn.Module):
    """Head like a user's own: a residual after a norm, a gate of the same map, and a functional pool."""

    def __init__(self, in_info: FeatureInfo, num_classes: int, align_corners: bool) -> None:
        super().__init__()
        channels = in_info.channels[-1]
        self.first, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.second, self.gate = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        y = self.first(levels[-1])
        y = self.norm(y) + y
        z = self.second(y)
        return self.classifier(torch.sigmoid(self.gate(z)) * z)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torchscript", pytest.param("torch_export", marks=pytest.mark.slow)])
def test_own_parts_with_residuals_and_gates_are_exported_as_they_are(
    form: str, make_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    module = _module(make_config, "model.neck.width=8")
    module.model.head = OwnHead(module.model.neck.out_info, module.spec.num_classes, True)
    fill_statistics(module.model.eval())
    for equal, difference in differences(module, form, tmp_path / f"net{formats.SUFFIXES[form]}"):
        assert equal >= 0.999
        assert difference < 1e-4


@pytest.mark.parametrize("form", formats.SUFFIXES)
def test_a_full_disk_is_one_line_and_leaves_no_file(form: str, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 64, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.conv(images.float())

    if form in ("openvino", "executorch"):
        pytest.importorskip(form)
    output, (soft, hard) = tmp_path / f"net{formats.SUFFIXES[form]}", resource.getrlimit(resource.RLIMIT_FSIZE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
        stack.enter_context(pytest.raises(UserError, match="cannot be written"))
        staged = stack.enter_context(atomic_io.atomic_write(output))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # Python ignores the signal of it
        writers.write(Net().eval(), form, staged.with_suffix(output.suffix), example_images(), max_size=256)
    assert list(tmp_path.iterdir()) == []


class _Bright(nn.Module):
    """Two scores of each pixel, with a branch that a trace cannot follow."""

    def forward(self, images: Tensor) -> Tensor:
        grey = images.float().mean(1, keepdim=True)
        return torch.cat([grey - 100, 100 - grey] if grey.shape[-1] > 0 and bool((grey >= 0).all()) else [grey], 1)


def test_torchscript_is_written_and_read_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "net.torchscript"
    with warnings.catch_warnings(record=True) as said:
        writers.write(_Bright().eval(), "torchscript", path, example_images())
        writers.give_labels(path)
        writers.describe(path, {"gives": "labels"})
        labels = formats.runner(path)(torch.full((1, 3, 4, 5), 120, dtype=torch.uint8))
    assert labels.shape == (1, 4, 5)
    assert not labels.any()
    assert said == []
