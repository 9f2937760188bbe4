"""Every neck and upsampler as users run them: trained, predicting, accelerated, compiled and exported."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import nn

from fastfcn_pl.acceleration.fold import ImageSegmenter
from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.config import build, schema
from fastfcn_pl.evaluation.protocols import logits
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.models.unused_weights import freeze_unused
from fastfcn_pl.ops.interpolate import resize
from fastfcn_pl.tools.export import formats, writers
from tests.conftest import composed
from tests.fakes.network import example_images, fill_statistics
from tests.support.grids import sample

FOLDER = schema.CONF_DIR / "model" / "neck"
WIDTHS = {"width": 8, "groups": 4, "norm_groups": 4, "channels": 8, "pool_channels": 4}
CLASSES = 5


def _defined_in(folder: Path) -> list[str]:
    """Return the options that name a class, and not those that inherit one and change its numbers."""
    return sorted(path.stem for path in folder.glob("*.yaml") if "_target_" in path.read_text())


PARTS = [
    *((f"model/neck={neck}",) for neck in _defined_in(FOLDER)),
    *(("model/neck=fpn", f"model/neck/upsampler={name}") for name in _defined_in(FOLDER / "upsampler")),
]
VARIANTS = [
    ("model/neck=fpn", "model/neck/upsampler=dysample", "model.neck.upsampler.style=pl"),
    ("model/neck=fpn", "model/neck/upsampler=dysample", "model.neck.upsampler.dynamic_scope=true"),
    ("model/neck=fpn", "model/neck/upsampler=fade", "model.neck.upsampler.lite=true"),
    ("model/neck=fpn", "model/neck/upsampler=fade", "model.neck.output_level=2"),
    ("model/neck=uafm", "model.neck.attention=channel"),
    ("model/neck=semantic_fpn", "model.neck.norm=group"),
    ("model/neck=sfnet", "model.neck.alignment=pooled"),
    ("model/neck=pan", "model.neck.output_level=2"),
]
"""Values of keys that change more than numbers."""
BACKBONES = [
    ("model.backbone.name=test_resnet",),
    ("model/backbone=efficientnet_lite0",),
    ("model/backbone=swin_tiny",),
    ("model/backbone=vit_pyramid", "model.backbone.name=test_vit"),
]
HEADS = ("fcn", "psp")
WITH_UNUSUAL_OPERATIONS = ("carafe", "dysample", "sapa", "pan", "sfnet", "fapn")
"""Parts whose operations exporters and compilers may get wrong; others are compiled and exported exhaustively."""


def _cells(*usual: str) -> list[object]:
    """Return each backbone, neck and head. All are exhaustive but the first of them with the necks `usual`, or any."""
    cells = []
    for backbone, part, head in product(BACKBONES, [*PARTS, *VARIANTS], HEADS):
        if backbone in BACKBONES[2:] and part[0].startswith("model/neck=dilated"):
            continue  # transformers have no dilation
        first = backbone == BACKBONES[0] and head == HEADS[0] and part not in VARIANTS
        named = not usual or part[-1].rpartition("=")[2] in usual
        overrides = (*backbone, *part, f"model/head={head}")
        marks = pytest.mark.slow if first and named else pytest.mark.exhaustive
        cells.append(pytest.param(overrides, id=" ".join(overrides), marks=marks))
    return cells


def _model(overrides: tuple[str, ...]) -> Segmenter:
    """Return a narrow network with random weights, also where learned operators begin as fixed ones."""
    cfg = composed(*overrides, "run_dir=.", "logger=none", "model.backbone.pretrained=false")
    for part in (cfg.model.neck, cfg.model.neck.get("upsampler"), cfg.model.head, cfg.model.aux_head):
        _narrow(part)
    torch.manual_seed(0)
    model = build.model(cfg, CLASSES)
    fill_statistics(model)
    for module in model.neck.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            with torch.no_grad():
                module.weight /= 2  # offsets of few pixels: those of many enlarge rounding errors
    return model


def _narrow(node: DictConfig | None) -> None:
    for key, width in WIDTHS.items():
        if node is not None and key in node:
            node[key] = width


@pytest.mark.parametrize("overrides", _cells())
def test_a_network_trains_and_predicts_faster(overrides: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    model = _model(overrides).train()
    freeze_unused(model)  # a ViT pyramid's finest level, as training does
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.01)
    images, labels = torch.randn(2, 3, 97, 129), torch.randint(0, CLASSES, (2, 97, 129))
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        outputs = model(images).named().values()
        losses.append(sum(F.cross_entropy(resize(output, (97, 129), True), labels) for output in outputs))
        losses[-1].backward()
        optimizer.step()
    assert losses[0] != losses[1]
    assert all(parameter.grad.isfinite().all() for parameter in trained.values())
    weights = [w for name, w in trained.items() if name.startswith("neck.") and not name.endswith("bias")]
    assert all(weight.grad.any() for weight in weights)  # a bias before a batch norm has a gradient of 0

    with torch.no_grad():
        expected = logits(model.eval(), images)
        assert expected.shape == (2, CLASSES, 97, 129)
        faster = optimize_for_inference(model, device=torch.device("cpu"))
        torch.testing.assert_close(logits(faster, images), expected, rtol=0, atol=1e-4 * float(expected.std()))
    assert capsys.readouterr().out == "", "acceleration gave up"


@pytest.mark.parametrize("overrides", _cells(*WITH_UNUSUAL_OPERATIONS))
def test_a_network_compiles_without_a_graph_break(overrides: tuple[str, ...]) -> None:
    model, images = _model(overrides).eval(), torch.randn(2, 3, 97, 129)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images).logits, model(images).logits)
    torch._dynamo.reset()
    torch.compile(model.train(), backend="eager", fullgraph=True)(images)


@pytest.mark.parametrize("form", sample(["onnx", "torch_export"], "onnx"))
@pytest.mark.parametrize("overrides", _cells(*WITH_UNUSUAL_OPERATIONS))
def test_a_file_gives_equal_labels_at_any_size(overrides: tuple[str, ...], form: str, tmp_path: Path) -> None:
    if form == "torch_export" and "model/neck=pan" in overrides:
        pytest.skip("torch.export takes the one pixel of PAN's attention in the example for a constant")
    model = _model(overrides).eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (model.backbone.mean, model.backbone.std))
    path = tmp_path / f"network{formats.SUFFIXES[form]}"
    writers.write(ImageSegmenter(model, mean, std, "logits").eval(), form, path, example_images())
    run = formats.runner(path)
    for size in ((97, 129), (64, 128)):
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        with torch.no_grad():
            expected = logits(model, (images - mean) / std)
        actual = run(images)
        assert (actual - expected).abs().max() < 1e-3 * expected.std()
        assert (actual.argmax(1) == expected.argmax(1)).double().mean() >= 0.999
