"""Training: the memory format that is right and fast, and fast layers in the places of torch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastfcn_pl.acceleration.depthwise_conv import use_fast_depthwise
from fastfcn_pl.acceleration.known_modules import make_contiguous
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.ops.fast_paths import accelerates, is_enabled


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return the format of weights and images."""
    return torch.channels_last if channels_last else torch.contiguous_format


def optimize_for_training(
    model: Segmenter, *, device: torch.device, precision: Any, channels_last: bool, accelerate: bool = True
) -> torch.memory_format:
    """Prepare `model` for training on `device` in one of Lightning's precisions; return the format of its images.

    The format is channels_last if that is asked for and right. On a CPU torch computes some gradients wrongly in it:
    those of grouped convolutions in half precision (tests/acceleration/test_training.py shows which), and those of
    convolutions that `corrupts_memory` names. That holds without `accelerate`, too, which leaves every layer as it is.
    """
    on_cpu = device.type == "cpu"
    grouped = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    wrong = on_cpu and any(map(corrupts_memory, model.modules()))
    if on_cpu and "16" in str(precision):
        wrong = wrong or bool(grouped)
        for conv in grouped:  # whose input is in channels_last after a Swin or ConvNeXt, whatever the images are in
            if make_contiguous not in conv._forward_pre_hooks.values():
                conv.register_forward_pre_hook(make_contiguous)
    form = memory_format(channels_last and not wrong)
    model.to(memory_format=form)
    if device.type == "cuda" and accelerates(accelerate) and is_enabled("triton depthwise"):
        use_fast_depthwise(model)
    return form


def corrupts_memory(module: nn.Module) -> bool:
    """Tell whether its backward pass in channels_last on CPUs writes outside of its memory (oneDNN issue 6035).

    Those are convolutions of one pixel with a stride and fewer channels than the vectors of AVX-512 hold, such as in
    the stems of FastViT and MobileOne.
    """
    if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or module.stride == (1, 1):
        return False
    return module.in_channels // module.groups < 16
