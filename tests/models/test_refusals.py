"""Options of backbones, necks and heads that do not go together, and values that no part can have."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from fastfcn_pl.config import build, validation
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine.error_messages import one_line

PYRAMID = ["model/backbone=vit_pyramid", "model.backbone.name=test_vit"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model/neck=dilated", *PYRAMID], r"output_stride: .* cannot be dilated .*: use another neck than dilated"),
        (["model=fcn_r50_d8", *PYRAMID], r"output_stride: .* cannot be dilated .*: use another neck than dilated"),
        ([*PYRAMID, "model.backbone.output_stride=8"], r"output_stride: .* cannot be dilated"),
        (["+model.backbone.blocks=[1]"], r"model\.backbone\.blocks: .* only model/backbone=vit_pyramid, for plain"),
        (["model.backbone.tile_size=64"], r"model\.backbone\.tile_size: .* only model/backbone=vit_pyramid, for plain"),
        (["+model.backbone.width=64"], r"model\.backbone\.width: .* only model/backbone=vit_pyramid, for plain"),
        ([*PYRAMID, "model.backbone.blocks=3"], r"model\.backbone\.blocks=3: use a list, such as \[3\]"),
        (
            [*PYRAMID, "model.backbone.width=0"],
            r"model\.backbone: \S+ has no elements, since a number of",
        ),
        (["model/neck=dilated", "model/backbone=swin_tiny"], r"output_stride=8 .*, or another neck than dilated"),
        (["model/backbone=resnet50c_mmseg", "model.backbone.name=regnetx_002"], "only a ResNet can be strided and dil"),
        (["model/neck=jpu", "model.neck.dilations=[]"], r"model\.neck\.dilations=\[\]: JPU needs one branch"),
        (["model/neck=jpu", "model.neck.dilations=2"], r"model\.neck\.dilations=2: use a list, such as \[2\]"),
        (["model/neck=jpu_x", "model.neck.groups=0"], r"must be a multiple of model\.neck\.groups=0"),
        (["model/neck=pan", "model.neck.width=0"], r"model\.neck: \S+ has no elements"),
        (["model/head=psp", "model.head.bins=[0]"], r"model\.head\.bins=\[0\]: a pool needs one cell a side at least"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_parts_that_do_not_go_together_are_refused_in_one_line(
    overrides: list[str], message: str, make_config: Callable[..., DictConfig]
) -> None:
    def build_model() -> None:
        cfg = make_config(*overrides, "data=shapes", "model.backbone.pretrained=false")
        validation.check(cfg)
        with torch.device("meta"):
            build.model(cfg, 5)

    with pytest.raises((UserError, ConfigCompositionException)) as refused:
        build_model()
    line = one_line(refused.value)
    assert line is not None
    assert "\n" not in line
    assert re.search(message, line), line
