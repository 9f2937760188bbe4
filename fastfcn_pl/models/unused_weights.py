"""Weights that no output of a network depends on."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call

from fastfcn_pl.models.segmenter import Segmenter


def freeze_unused(model: Segmenter) -> list[str]:
    """Freeze the weights that no output in training depends on, and return their names.

    HRNet has some if its finest level is not used. DDP would wait for their gradients, and weight decay would shrink
    them. A pass on the meta device, which computes only shapes, finds them; a network that cannot run there keeps all.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    state: dict[str, torch.Tensor] = {
        name: nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=name in trainable)
        for name, p in model.named_parameters()
    }
    state |= {name: torch.empty_like(b, device="meta") for name, b in model.named_buffers()}
    try:
        images = torch.zeros(2, model.in_chans, 128, 128, device="meta")
        output = functional_call(model, state, (images,), {"extras": True})
        losses = torch.stack([value.sum() for value in output.named().values()]).sum()
        gradients = torch.autograd.grad(losses, [state[name] for name in trainable], allow_unused=True)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return []
    unused = [name for name, gradient in zip(trainable, gradients, strict=True) if gradient is None]
    for name in unused:
        trainable[name].requires_grad_(False)
    return unused
