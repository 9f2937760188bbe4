"""How weights and maps lie in memory while a network is trained: the one place that chooses it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.cpu_convs import PointwiseConv, WideConv, substitute
from fastfcn_pl.acceleration.known_modules import accelerates, is_untouched, use_plain_layers
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.ops.depthwise_conv import DepthwiseConv


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return the format of weights and images."""
    return torch.channels_last if channels_last else torch.contiguous_format


def lay_out(
    network: Segmenter, channels_last: bool, device: torch.device, half: bool, accelerate: bool = True
) -> torch.memory_format:
    """Lay out the weights for training on `device`, in `half` precision or not; return the format of its images.

    Without `accelerate` its layers are torch's and timm's own. Without `channels_last` it is torch's default format,
    and so it is on CPUs in half precision where a grouped convolution is none of ours: dilated ones have a wrong
    gradient in channels_last, and others are not known to have a right one. So it is with convolutions that
    `corrupts_memory` names. Where all are dense or ours, a step of EncNet + JPU with ResNet-50 in bfloat16 takes 2.5 s,
    3.5 in the default format (2 images of 480x480, 2 threads of a Xeon with AMX).

    In float32 on CPUs, dense convolutions of more than a pixel take 3 to 5 times as long for the gradient of their
    weight in channels_last, and depthwise ones are faster there. So a backbone of dense ones is in the default format,
    where those of one pixel are products of matrices, and in any other the dense ones convert what they take and give.
    A step with JPU on one core takes 3.7 s with ResNet-50 (5.5 in channels_last, 4.1 if converting), 2.8 s with
    ConvNeXt-T (3.8 in either format throughout), 3.9 with Swin-T (5.3 and 4.7), 1.1 with MobileNetV3 (1.4 and 1.3), and
    with EfficientNet-Lite0 the same 1.2 in all.
    """
    on_cpu = device.type == "cpu"
    fast = on_cpu and not half and accelerates(accelerate)
    if not accelerates(accelerate):
        use_plain_layers(network)
    dense = fast and _mostly_dense(network.backbone)
    wrong = on_cpu and any((half and _is_grouped_by_torch(m)) or corrupts_memory(m) for m in network.modules())
    if dense:
        substitute(network, PointwiseConv.like)
    if fast:
        substitute(network, WideConv.like)
    form = memory_format(channels_last and not dense and not wrong)
    network.to(memory_format=form)
    if fast and form is torch.channels_last:
        for module in network.modules():
            if type(module) in (nn.Conv2d, WideConv) and _is_dense(module) and is_untouched(module):
                module.to(memory_format=torch.contiguous_format)
                module.register_forward_pre_hook(_take)
                module.register_forward_hook(_give)
    return form


def corrupts_memory(module: nn.Module) -> bool:
    """Tell whether its backward pass in channels_last on CPUs writes outside of its memory (oneDNN issue 6035).

    Those are convolutions of one pixel with a stride, of fewer channels than the vectors of AVX-512 hold, such as in
    the stems of FastViT and MobileOne.
    """
    if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or module.stride == (1, 1):
        return False
    return module.in_channels // module.groups < 16


def _is_dense(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.kernel_size != (1, 1)


def _is_grouped_by_torch(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and not isinstance(module, DepthwiseConv) and module.groups > 1


def _mostly_dense(backbone: nn.Module) -> bool:
    """Tell whether it has more dense convolutions of more than a pixel than grouped ones and linear layers together."""
    others = [m for m in backbone.modules() if isinstance(m, nn.Linear) or getattr(m, "groups", 1) > 1]
    return sum(map(_is_dense, backbone.modules())) > len(others)


def _take(conv: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].contiguous(),)


def _give(conv: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.contiguous(memory_format=torch.channels_last)
