"""Tell whether a module computes exactly what its class says, and turn our faster classes back into torch's."""

from __future__ import annotations

import functools
import os
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_HARMLESS = ("torch.nn.utils.", "timm.", "fastfcn_pl.")
"""Packages whose hooks may run once more than a user asked for: they compute weights, or collect features."""
_NORM_ACT, _SAME = "timm.layers.norm_act.BatchNormAct2d", "timm.layers.conv2d_same.Conv2dSame"
"""timm's batch norm with an activation inside, and its convolution whose padding follows the size: by name, since only
backbones import timm."""
Network = TypeVar("Network", bound=nn.Module)


def accelerates(accelerate: bool = True) -> bool:
    """Tell whether networks may be changed to run faster: `accelerate`, unless FASTFCN_ACCELERATE says 0 or false."""
    return accelerate and os.environ.get("FASTFCN_ACCELERATE", "1").strip().lower() not in ("0", "false", "no", "off")


def is_untouched(module: nn.Module) -> bool:
    """Tell whether calling `module` runs its class's `forward` and nothing else: no hook, no `forward` of its own."""
    hooked = any(getattr(module, name, None) for name in _HOOKS) or torch_module._has_any_global_hook()
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return not hooked and not compiled and "forward" not in vars(module)


def is_norm_act(module: nn.Module) -> bool:
    """Tell whether `module` is exactly timm's batch norm with an activation inside."""
    return _name(module) == _NORM_ACT


def is_convolution(module: nn.Module) -> bool:
    """Tell whether `module` is a convolution by its own weight, of torch's, timm's or ours, whatever its padding."""
    ours = isinstance(module, nn.Conv2d) and "stands_for" in vars(type(module))
    return type(module) is nn.Conv2d or ours or _name(module) == _SAME


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


def use_plain_layers(network: Network, keep: tuple[type[nn.Module], ...] = ()) -> Network:
    """Give layers of ours that stand for one of torch's or timm's its class again, but for those of the classes `keep`.

    Each has exactly the state of the layer that it stands for, and names that as `stands_for`.
    """
    for module in network.modules():
        plain = vars(type(module)).get("stands_for")
        if plain is not None and not isinstance(module, keep):
            module.__class__ = plain
    return network


class StandIn(nn.Module):
    """A module in the place of a convolution, whose attributes it has, too: a parent may ask for them."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._conv = (conv,)  # a tuple: its weights are not counted once more

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_conv" not in vars(self):  # while it is copied
                raise
            return getattr(self._conv[0], name)


class LeftOut(nn.Module):
    """An activation that is computed in front of its place, so that it returns its input; its attributes are kept."""

    def forward(self, x: Tensor) -> Tensor:
        return x
