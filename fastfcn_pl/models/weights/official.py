"""Checkpoints of the official FastFCN and PyTorch-Encoding code: the network in one, our names for its tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.weights.rename import Architecture, Rules

_BACKBONES = {
    (6, "conv1.0"): "resnet50s",
    (23, "conv1.0"): "resnet101s",
    (36, "conv1.0"): "resnet152s",
    (6, "conv1"): "resnet50",
    (23, "conv1"): "resnet101",
}
"""Backbones by the number of blocks in `layer3` and the first convolution; FastFCN has only those with a deep stem."""


def is_official(state: dict[str, Tensor]) -> bool:
    """Recognize these checkpoints by the name of their backbone."""
    return any(name.startswith("pretrained.layer1.") for name in state)


def architecture(state: dict[str, Tensor]) -> Architecture:
    """Return the network that `state` holds, read from names and shapes.

    Dilation leaves no trace there. A network without JPU is taken as dilated, at stride 8, as its authors trained it,
    and one with JPU as not dilated. A JPU with lateral connections is dilated, too: they join maps of one size.
    """
    keys: dict[str, Any] = {"align_corners": True}
    if "jpu.conv5.0.weight" in state:
        neck, keys["neck.width"] = "jpu", len(state["jpu.conv5.0.weight"])
    elif "jpu.jum_2.conv_l.0.weight" in state:
        neck, keys["neck.width"] = "jpu_x", len(state["jpu.jum_2.conv_l.0.weight"])
    else:
        neck = "dilated"
    if "auxlayer.conv5.0.weight" in state:
        aux_head, keys["aux_head.channels"] = "fcn", len(state["auxlayer.conv5.0.weight"])
    else:
        aux_head = "none"
    head, classifier = _head(state)
    keys["head.channels"] = state[classifier].shape[1]
    if head == "psp":
        keys["head.pool_channels"] = len(state["head.conv5.0.conv1.0.weight"])
    if head == "encnet":
        keys["head.kernel_size"] = state["head.conv5.0.weight"].shape[-1]
        keys["head.num_codes"] = len(state["head.encmodule.encoding.3.codewords"])
        keys["head.lateral"] = "head.fusion.0.weight" in state
        keys["head.se_loss"] = "head.encmodule.selayer.weight" in state
        if keys["head.lateral"] and neck != "dilated":
            keys["backbone.output_stride"] = 8
    options = {"backbone": _backbone(state), "neck": neck, "head": head, "aux_head": aux_head}
    return Architecture(options, keys, len(state[classifier]))


def _backbone(state: dict[str, Tensor]) -> str:
    """Return the option of the backbone."""
    blocks = len({name.split(".")[2] for name in state if name.startswith("pretrained.layer3.")})
    first = "conv1" if "pretrained.conv1.weight" in state else "conv1.0"
    if (blocks, first) not in _BACKBONES or "pretrained.layer1.0.conv2.weight" not in state:  # ResNeSt splits conv2
        raise UserError(f"its backbone is none of {', '.join(_BACKBONES.values())}")
    return _BACKBONES[blocks, first]


def _head(state: dict[str, Tensor]) -> tuple[str, str]:
    """Return the option of the head, and the name of its classifier's weight."""
    for head, mark, classifier in (
        ("encnet", "head.encmodule.encoding.0.weight", "head.conv6.1.weight"),
        ("aspp", "head.aspp.b0.0.weight", "head.block.4.weight"),
        ("psp", "head.conv5.0.conv1.0.weight", "head.conv5.5.weight"),
        ("fcn", "head.conv5.4.weight", "head.conv5.4.weight"),
    ):
        if mark in state and classifier in state:
            return head, classifier
    raise UserError("its head is none of FCN, PSP, ASPP and EncNet")


def rules(head: str) -> Rules:
    """Return the rules that rename tensors to those of our network with this head."""
    return [
        (r"pretrained\.fc\.", None),  # ImageNet's classifier
        (r"pretrained\.", "backbone.net."),
        *((rf"jpu\.conv{level}\.", f"neck.convs.{level - 3}.") for level in (3, 4, 5)),
        *_separable(r"jpu\.dilation", "neck.branches"),
        *(
            rule
            for theirs, ours in (("jum_1", "first"), ("jum_2", "second"))
            for rule in (
                (rf"jpu\.{theirs}\.conv_l\.", f"neck.{ours}.conv_low."),
                (rf"jpu\.{theirs}\.conv_h\.", f"neck.{ours}.conv_high."),
                *_separable(rf"jpu\.{theirs}\.dilation", f"neck.{ours}.branches"),
            )
        ),
        *_fcn("auxlayer", "aux_head"),
        *_HEADS[head],
    ]


def _separable(theirs: str, ours: str) -> Rules:
    return [
        (rf"{theirs}{i + 1}\.{layer}\.", f"{ours}.{i}.{j}.")
        for i in range(4)
        for j, layer in enumerate((r"0\.conv1", r"0\.bn", r"0\.pointwise", "1"))
    ]


def _fcn(theirs: str, ours: str) -> Rules:
    return [
        (rf"{theirs}\.conv5\.([01])\.", rf"{ours}.layers.0.\1."),
        (rf"{theirs}\.conv5\.4\.", f"{ours}.layers.2."),
    ]


_HEADS: dict[str, Rules] = {
    "fcn": _fcn("head", "head"),
    "psp": [
        *((rf"head\.conv5\.0\.conv{i + 1}\.", f"head.pyramid.pools.{i}.1.") for i in range(4)),
        (r"head\.conv5\.1\.", "head.layers.0.0."),
        (r"head\.conv5\.2\.", "head.layers.0.1."),
        (r"head\.conv5\.5\.", "head.layers.2."),
    ],
    "aspp": [
        (r"head\.aspp\.b([0-3])\.", r"head.aspp.branches.\1."),
        (r"head\.aspp\.b4\.gap\.1\.", "head.aspp.pool.1.0."),
        (r"head\.aspp\.b4\.gap\.2\.", "head.aspp.pool.1.1."),
        (r"head\.aspp\.project\.", "head.aspp.project.0."),
        (r"head\.block\.([01])\.", r"head.layers.0.\1."),
        (r"head\.block\.4\.", "head.layers.2."),
    ],
    "encnet": [
        (r"head\.(conv5|connect|fusion)\.", r"head.\1."),
        (r"head\.encmodule\.encoding\.([01])\.", r"head.encode.0.\1."),
        (r"head\.encmodule\.encoding\.3\.", "head.encode.1."),
        (r"head\.encmodule\.encoding\.4\.", "head.encode.2."),
        (r"head\.encmodule\.fc\.0\.", "head.gate.0."),
        (r"head\.encmodule\.selayer\.", "head.se_layer."),
        (r"head\.conv6\.1\.", "head.classifier.1."),
    ],
}
