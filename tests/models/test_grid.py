"""Every backbone with every neck and every head: it builds, trains and publishes the truth, or says why not."""

from __future__ import annotations

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config import build, schema
from fastfcn_pl.core.types import UserError
from tests.support.grids import sample

BACKBONES = [
    "test_resnet",
    "test_efficientnet",
    "test_convnext",
    "mobilenetv3_small_050",
    "lcnet_035",
    "regnetx_002",
    "pvt_v2_b0",
    "efficientvit_b0",
]
NECKS = sorted(path.stem for path in (schema.CONF_DIR / "model" / "neck").glob("*.yaml"))
HEADS = sorted(path.stem for path in (schema.CONF_DIR / "model" / "head").glob("*.yaml"))
WIDTHS = {"width": 8, "groups": 4, "channels": 8, "pool_channels": 4, "low_level_channels": 4, "num_codes": 3}
WITHOUT_DILATION = ("pvt_v2_b0", "efficientvit_b0")


def _narrow(node: DictConfig) -> None:
    for key, width in WIDTHS.items():
        if key in node:
            node[key] = width


def _config(*overrides: str) -> DictConfig:
    cfg = build.compose([*overrides, "run_dir=.", "logger=none", "model.backbone.pretrained=false"])
    for part in ("neck", "head", "aux_head"):
        _narrow(cfg.model[part])
    return cfg


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("head", HEADS)
def test_cell(backbone: str, neck: str, head: str) -> None:
    cfg = _config(f"model/neck={neck}", f"model/head={head}", f"model.backbone.name={backbone}")
    if neck.startswith("dilated") and backbone in WITHOUT_DILATION:
        with pytest.raises(UserError, match="timm cannot build it with output_stride="):
            build.model(cfg, 5)
        return
    model = build.model(cfg, 5)
    x = torch.randn(2, 3, 97, 129)
    levels = model.neck(model.backbone(x))
    info = model.neck.out_info
    expected = [(2, c, -(-97 // s), -(-129 // s)) for c, s in zip(info.channels, info.strides, strict=True)]
    assert [tuple(level.shape) for level in levels] == expected
    output = model(x)
    assert tuple(output.named()) == model.outputs
    assert output.logits.shape[:2] == (2, 5)
    sum(value.square().mean() for value in output.named().values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.eval()(x).extras == {}


RECIPES = sorted(path.stem for path in (schema.CONF_DIR / "model").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_parameters_of_a_recipe_are_golden(recipe: str) -> None:
    """Counted on the meta device, 59 classes; JPU's and JPU-X's are the official code's (19,735,552 and 19,719,168)."""
    golden = OmegaConf.load(schema.CONF_DIR.parent / "tests" / "golden" / "parameters.yaml")
    with torch.device("meta"):
        model = build.model(build.compose([f"model={recipe}", "run_dir=.", "model.backbone.pretrained=false"]), 59)
    actual = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert actual == OmegaConf.to_container(golden)[recipe]  # type: ignore[call-overload, index]


EVERY_PART = ("fcn_r50_d32", "fastfcn_encnet_r50", "fastfcn_deeplab_r50", "pspnet_r50_d8")
"""Recipes that have every neck and head of all recipes between them."""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sample(RECIPES, *EVERY_PART))
def test_a_recipe_compiles_and_exports_whole(recipe: str) -> None:
    """Small backbones and widths compile without a graph break, and export to a program that computes the same."""
    stride = build.compose([f"model={recipe}", "run_dir=."]).model.backbone.output_stride
    cfg = _config(f"model={recipe}", "model.backbone.name=test_resnet", f"model.backbone.output_stride={stride}")
    model = build.model(cfg, 5).eval()
    x = torch.randn(2, 3, 64, 96)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        expected = model(x).logits
        torch.testing.assert_close(compiled(x).logits, expected)
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x).logits, expected)
    torch._dynamo.reset()
    model.train()
    torch.compile(model, backend="eager", fullgraph=True)(x)
