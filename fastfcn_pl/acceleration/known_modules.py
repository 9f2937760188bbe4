"""Tell whether a module computes exactly what its class says."""

from __future__ import annotations

import functools
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_HARMLESS = ("torch.nn.utils.", "timm.", "fastfcn_pl.")
"""Packages whose hooks may run once more than a user asked for: they compute weights, or collect features."""
_NORM_ACT, _SAME = "timm.layers.norm_act.BatchNormAct2d", "timm.layers.conv2d_same.Conv2dSame"
"""timm's batch norm with an activation inside, and its convolution whose padding follows the size: by name, since only
backbones import timm."""


def make_contiguous(conv: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Hand a convolution its input in the default memory format while gradients are computed (a forward pre-hook)."""
    return (with_default_strides(inputs[0]), *inputs[1:]) if torch.is_grad_enabled() else None


def with_default_strides(x: Tensor) -> Tensor:
    """Return `x` in the default memory format, which `contiguous` does not do if a dimension is 1."""
    return x.flatten().view(x.shape)


def is_untouched(module: nn.Module) -> bool:
    """Tell whether calling `module` runs its class's `forward` and nothing else: no hook, no `forward` of its own."""
    hooks = [hook for kind in _HOOKS for hook in getattr(module, kind, {}).values() if hook is not make_contiguous]
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return not hooks and not torch_module._has_any_global_hook() and not compiled and "forward" not in vars(module)


def is_norm_act(module: nn.Module) -> bool:
    """Tell whether `module` is exactly timm's batch norm with an activation inside."""
    return _name(module) == _NORM_ACT


def is_convolution(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tell whether `module` is a convolution by its own weight, of torch's or timm's, whatever its padding."""
    known = type(module) is nn.Conv2d or _name(module) == _SAME
    return known and type(module._parameters.get("weight")) is nn.Parameter


def is_plain_convolution(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tell whether `module` is torch's own convolution by its own weight, padded with zeros whose number is given."""
    plain = type(module) is nn.Conv2d and is_convolution(module)
    return plain and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def foreign_hook(model: nn.Module) -> str | None:
    """Return the name of a module of `model` with a hook whose calls somebody may count, None if there is none."""
    if torch_module._has_any_global_hook():
        return "every module"
    for name, module in model.named_modules():
        hooks = [hook for kind in _HOOKS for hook in getattr(module, kind, {}).values()]
        if not all(map(_is_harmless, hooks)):
            return name or "the network"
    return None


def _is_harmless(hook: Any) -> bool:
    while isinstance(hook, functools.partial):
        hook = hook.func
    return (getattr(hook, "__module__", None) or "").startswith(_HARMLESS)
