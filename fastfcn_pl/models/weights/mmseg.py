"""Checkpoints of mmsegmentation's FastFCN models: the network in one, and our names for its tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.weights.rename import Architecture, Rules

_BACKBONES = {6: "resnet50c_mmseg", 23: "resnet101c_mmseg"}
"""Backbones by the number of blocks in `layer3`."""
_CONV_NORM = (("conv", 0), ("bn", 1))


def is_mmseg(state: dict[str, Tensor]) -> bool:
    """Recognize these checkpoints by the names of their backbone and their head."""
    return "backbone.stem.0.weight" in state and "decode_head.conv_seg.weight" in state


def architecture(state: dict[str, Tensor]) -> Architecture:
    """Return the network that `state` holds, read from names and shapes."""
    blocks = len({name.split(".")[2] for name in state if name.startswith("backbone.layer3.")})
    if blocks not in _BACKBONES:
        raise UserError(f"a ResNet with {blocks} blocks in layer3 is none of {', '.join(_BACKBONES.values())}")
    if "neck.conv_layers.0.0.conv.weight" not in state:
        raise UserError("it has no JPU: only the FastFCN models of mmsegmentation can be read")
    num_classes, channels = state["decode_head.conv_seg.weight"].shape[:2]
    keys: dict[str, Any] = {"align_corners": False, "head.channels": channels}
    keys["neck.width"] = len(state["neck.conv_layers.0.0.conv.weight"])
    if "auxiliary_head.conv_seg.weight" in state:
        aux_head, keys["aux_head.channels"] = "fcn", state["auxiliary_head.conv_seg.weight"].shape[1]
    else:
        aux_head = "none"
    if "decode_head.enc_module.encoding.0.codewords" in state:
        head = "encnet"
        keys["head.kernel_size"] = state["decode_head.bottleneck.conv.weight"].shape[-1]
        keys["head.num_codes"] = len(state["decode_head.enc_module.encoding.0.codewords"])
        keys["head.lateral"] = "decode_head.fusion.conv.weight" in state
        keys["head.se_loss"] = "decode_head.se_layer.weight" in state
    elif "decode_head.aspp_modules.0.conv.weight" in state:
        head = "aspp"
        keys |= {"head.project_kernel_size": 3, "head.project_dropout": 0.0, "head.refine": False}
    elif "decode_head.psp_modules.0.1.conv.weight" in state:
        head, keys["head.pool_channels"] = "psp", len(state["decode_head.psp_modules.0.1.conv.weight"])
    else:
        raise UserError("its head is none of PSPHead, ASPPHead and EncHead")
    options = {"backbone": _BACKBONES[blocks], "neck": "jpu", "head": head, "aux_head": aux_head}
    return Architecture(options, keys, num_classes)


def reorder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring channels into our order: JPU joins C5 first here, C3 first there; ASPP's image pool is last here."""
    changed = dict(state)
    for name, tensor in state.items():
        if "dilation_layers" in name and ".depthwise_conv." in name and tensor.ndim:
            changed[name] = _reverse_thirds(tensor, 0)
        elif "dilation_layers" in name and name.endswith("pointwise_conv.conv.weight"):
            changed[name] = _reverse_thirds(tensor, 1)
        elif name == "decode_head.bottleneck.conv.weight" and "decode_head.image_pool.1.conv.weight" in state:
            channels = len(state["decode_head.image_pool.1.conv.weight"])
            changed[name] = tensor.roll(-channels, dims=1)
    return changed


def _reverse_thirds(tensor: Tensor, dim: int) -> Tensor:
    return tensor.unflatten(dim, (3, -1)).flip(dim).flatten(dim, dim + 1)


def rules(head: str) -> Rules:
    """Return the rules that rename tensors to those of our network with this head."""
    return [
        *((rf"backbone\.stem\.{i}\.", f"backbone.net.conv1.{i}.") for i in (0, 1, 3, 4, 6)),
        (r"backbone\.stem\.7\.", "backbone.net.bn1."),
        (r"backbone\.fc\.", None),  # ImageNet's classifier
        (r"backbone\.", "backbone.net."),
        *(
            rule
            for i in range(4)
            for theirs, ours in (("depthwise_conv", 0), ("pointwise_conv", 2))
            for rule in _conv_norm(rf"neck\.dilation_layers\.{i}\.0\.{theirs}", f"neck.branches.{i}", ours)
        ),
        *(rule for i in range(3) for rule in _conv_norm(rf"neck\.conv_layers\.{i}\.0", f"neck.convs.{i}")),
        *_conv_norm(r"auxiliary_head\.convs\.0", "aux_head.layers.0"),
        (r"auxiliary_head\.conv_seg\.", "aux_head.layers.2."),
        *_HEADS[head],
    ]


def _conv_norm(theirs: str, ours: str, first: int = 0) -> Rules:
    return [(rf"{theirs}\.{layer}\.", f"{ours}.{first + i}.") for layer, i in _CONV_NORM]


_HEADS: dict[str, Rules] = {
    "psp": [
        *(
            rule
            for i in range(4)
            for rule in _conv_norm(rf"decode_head\.psp_modules\.{i}\.1", f"head.pyramid.pools.{i}.1")
        ),
        *_conv_norm(r"decode_head\.bottleneck", "head.layers.0"),
        (r"decode_head\.conv_seg\.", "head.layers.2."),
    ],
    "aspp": [
        *(rule for i in range(4) for rule in _conv_norm(rf"decode_head\.aspp_modules\.{i}", f"head.aspp.branches.{i}")),
        *_conv_norm(r"decode_head\.image_pool\.1", "head.aspp.pool.1"),
        *_conv_norm(r"decode_head\.bottleneck", "head.aspp.project.0"),
        (r"decode_head\.conv_seg\.", "head.layers.2."),
    ],
    "encnet": [
        *_conv_norm(r"decode_head\.bottleneck", "head.conv5"),
        *(rule for i in range(2) for rule in _conv_norm(rf"decode_head\.lateral_convs\.{i}", f"head.connect.{i}")),
        *_conv_norm(r"decode_head\.fusion", "head.fusion"),
        *_conv_norm(r"decode_head\.enc_module\.encoding_project", "head.encode.0"),
        (r"decode_head\.enc_module\.encoding\.0\.", "head.encode.1."),
        (r"decode_head\.enc_module\.encoding\.1\.", "head.encode.2."),
        (r"decode_head\.enc_module\.fc\.0\.", "head.gate.0."),
        (r"decode_head\.se_layer\.", "head.se_layer."),
        (r"decode_head\.conv_seg\.", "head.classifier.1."),
    ],
}
