"""Published networks are told by names and shapes, whatever their parts; all on the meta device."""

from __future__ import annotations

import pytest
import torch

from fastfcn_pl.config import build
from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.weights import mmseg
from fastfcn_pl.models.weights.recognize import recognise
from tests.fakes.published import state_dict

OFFICIAL = [
    ("resnet50s", "jpu fcn aux", "jpu fcn fcn"),
    ("resnet50s", "jpu_x fcn", "jpu_x fcn none"),
    ("resnet50", "fcn aux", "dilated fcn fcn"),
    ("resnet50s", "jpu_x psp aux", "jpu_x psp fcn"),
    ("resnet101", "psp", "dilated psp none"),
    ("resnet50s", "jpu aspp aux", "jpu aspp fcn"),
    ("resnet152s", "aspp", "dilated aspp none"),
    ("resnet101s", "jpu_x encnet encnet_jpu encnet_se aux", "jpu_x encnet fcn"),
    ("resnet50s", "jpu encnet encnet_jpu", "jpu encnet none"),
    ("resnet50s", "jpu encnet encnet_jpu encnet_lateral", "jpu encnet none"),
    ("resnet50s", "encnet encnet_dilated encnet_lateral encnet_se aux", "dilated encnet fcn"),
]
MMSEG = [
    ("resnet50c", "jpu psp aux", "jpu psp fcn"),
    ("resnet101c", "jpu aspp", "jpu aspp none"),
    ("resnet50c", "jpu encnet encnet_se aux", "jpu encnet fcn"),
    ("resnet50c", "jpu encnet encnet_lateral", "jpu encnet none"),
]
CASES = [(source, *case) for source, cases in (("official", OFFICIAL), ("mmseg", MMSEG)) for case in cases]


@pytest.mark.slow
@pytest.mark.parametrize(("source", "backbone", "parts", "options"), CASES)
def test_every_tensor_finds_its_place(source: str, backbone: str, parts: str, options: str) -> None:
    with torch.device("meta"):
        published = recognise(state_dict(source, backbone, parts))
        architecture = published.architecture
        assert " ".join(architecture.options[group] for group in ("neck", "head", "aux_head")) == options
        cfg = build.compose([*architecture.overrides, "run_dir=.", "model.backbone.pretrained=false"])
        model = build.model(cfg, architecture.num_classes).eval()
        output = model(torch.zeros(1, 3, 97, 129), extras=True)
    assert {k: v.shape for k, v in published.state.items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert cfg.model.backbone.name == backbone
    extras = {"aux": "aux_logits", "encnet_se": "se_logits"}
    assert set(output.extras) == {extras[part] for part in parts.split() if part in extras}
    assert output.logits.shape == (1, {"official": 59, "mmseg": 150}[source], 13, 17)
    dilated = source == "official" and ("jpu" not in parts or "lateral" in parts)
    assert model.backbone.out_info.strides == ((4, 8, 8, 8) if dilated else (4, 8, 16, 32))
    assert model.align_corners == (source == "official")


@pytest.mark.parametrize(
    ("source", "parts", "theirs", "ours"),
    [
        ("official", "jpu_x aspp", "jpu.jum_1.conv_l.0.weight", "neck.first.conv_low.0.weight"),
        ("official", "jpu_x aspp", "jpu.jum_2.conv_h.1.bias", "neck.second.conv_high.1.bias"),
        ("official", "jpu_x aspp", "jpu.jum_2.dilation3.0.bn.bias", "neck.second.branches.2.1.bias"),
        ("official", "jpu_x aspp", "jpu.jum_2.dilation1.1.weight", "neck.second.branches.0.3.weight"),
        ("official", "jpu_x aspp", "head.aspp.b2.0.weight", "head.aspp.branches.2.0.weight"),
        ("official", "jpu_x aspp", "head.aspp.b4.gap.2.bias", "head.aspp.pool.1.1.bias"),
        ("mmseg", "jpu aspp", "decode_head.aspp_modules.3.conv.weight", "head.aspp.branches.3.0.weight"),
        ("mmseg", "jpu encnet encnet_lateral", "decode_head.lateral_convs.1.bn.weight", "head.connect.1.1.weight"),
    ],
)
def test_tensors_of_one_shape_are_not_confused(source: str, parts: str, theirs: str, ours: str) -> None:
    with torch.device("meta"):
        state = state_dict(source, {"official": "resnet50s", "mmseg": "resnet50c"}[source], parts)
        assert recognise(state).state[ours] is state[theirs]


def test_maps_that_mmsegmentation_joins_in_another_order() -> None:
    """JPU joins C3, C4, C5 there and C5, C4, C3 here; ASPP's image pool comes first there and last here."""
    jpu = {"neck.dilation_layers.0.0.pointwise_conv.conv.weight": torch.tensor([3, 3, 4, 4, 5, 5]).view(1, 6, 1, 1)}
    assert mmseg.reorder(jpu).popitem()[1].flatten().tolist() == [5, 5, 4, 4, 3, 3]
    aspp = {
        "decode_head.image_pool.1.conv.weight": torch.zeros(2, 4, 1, 1),
        "decode_head.bottleneck.conv.weight": torch.tensor([9, 9, 1, 1, 2, 2, 3, 3, 4, 4]).view(1, 10, 1, 1),
    }
    joined = mmseg.reorder(aspp)["decode_head.bottleneck.conv.weight"]
    assert joined.flatten().tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 9, 9]


def test_what_varies_from_file_to_file() -> None:
    """The prefix of DataParallel, ImageNet's classifier, and counts of batches, which torch kept from 0.4.1 on."""
    with torch.device("meta"):
        state = state_dict("official", "resnet50s", "jpu fcn")
        expected = recognise(state)
        old = {f"module.{k}": v for k, v in state.items() if "num_batches" not in k and ".fc." not in k}
        actual = recognise(old)
    assert actual.architecture == expected.architecture
    assert actual.state.keys() == expected.state.keys()
    assert (actual.dropped, expected.dropped) == ([], ["pretrained.fc.weight", "pretrained.fc.bias"])


@pytest.mark.parametrize(
    ("backbone", "parts", "left_out", "message"),
    [
        ("resnest50d", "fcn", "", "its backbone is none of resnet50s, resnet101s, resnet152s, resnet50, resnet101"),
        ("resnet26t", "fcn", "", "its backbone is none of"),
        ("resnet50s", "jpu aux", "", "its head is none of FCN, PSP, ASPP and EncNet"),
        ("resnet50s", "encnet encnet_dilated", "codewords", "'head.encmodule.encoding.3.codewords' is missing"),
    ],
)
def test_what_is_not_known_is_said(backbone: str, parts: str, left_out: str, message: str) -> None:
    with torch.device("meta"):
        state = state_dict("official", backbone, parts)
    with pytest.raises(UserError, match=message):
        recognise({k: v for k, v in state.items() if not left_out or left_out not in k})
