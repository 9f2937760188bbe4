"""Training: the memory format that is right and fast, and fast layers in the places of torch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastfcn_pl.acceleration.depthwise_conv import use_fast_depthwise
from fastfcn_pl.acceleration.known_modules import make_contiguous, with_default_strides
from fastfcn_pl.ops.fast_paths import accelerates


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return the format of weights and images."""
    return torch.channels_last if channels_last else torch.contiguous_format


def optimize_for_training(
    model: nn.Module, *, device: torch.device, precision: Any, channels_last: bool, accelerate: bool = True
) -> torch.memory_format:
    """Prepare `model` for training on `device` in one of Lightning's precisions; return the format of its images.

    The format is channels_last if that is asked for and every gradient is right in it, see `is_wrong_in_channels_last`.
    It is chosen in the same way without `accelerate`, which leaves every layer as it is.
    """
    half = "16" in str(precision)
    wrong = [m for m in model.modules() if device.type == "cpu" and is_wrong_in_channels_last(m, half)]
    for conv in wrong:  # a Swin or ConvNeXt hands on maps in channels_last, whatever the format of its images
        if make_contiguous not in conv._forward_pre_hooks.values():
            conv.register_forward_pre_hook(make_contiguous)
    form = memory_format(channels_last and not wrong)
    model.to(memory_format=form)
    for parameter in (parameter for conv in wrong for parameter in conv.parameters()):
        parameter.data = with_default_strides(parameter.data)
    if form is torch.channels_last and accelerates(accelerate):
        use_fast_depthwise(model)
    return form


def is_wrong_in_channels_last(module: nn.Module, half: bool) -> bool:
    """Tell whether the backward pass of `module` on a CPU is wrong in channels_last, in `half` precision or not.

    Gradients of dilated depthwise convolutions are wrong in half precision (torch 2.14), and those of other grouped
    ones are not known to be right. Convolutions of one pixel with a stride and fewer channels than a vector of AVX-512
    write outside of their memory (oneDNN issue 6035); the stems of FastViT and MobileOne have such.
    """
    if not isinstance(module, nn.Conv2d):
        return False
    few = module.in_channels // module.groups < 16
    corrupts_memory = module.kernel_size == (1, 1) and module.stride != (1, 1) and few
    return corrupts_memory or (half and module.groups > 1)
