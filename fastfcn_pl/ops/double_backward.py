"""Second-order gradients of autograd functions whose backward pass is written by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Backward = Callable[..., tuple[Tensor | None, ...]]


def double_backward(plain: Callable[[Any], tuple[Tensor, Sequence[Tensor | None]]]) -> Callable[[Backward], Backward]:
    """Decorate a `backward` that torch cannot differentiate, so that gradients of gradients are right.

    `plain(ctx)` returns the function's output, computed by torch's own operations, and the inputs that it was computed
    from, one for each argument of `forward` (None for an argument that is not a tensor). It runs only in a backward
    pass with `create_graph=True`. `once_differentiable` would silently drop the gradient of a constant incoming one.
    """

    def decorate(backward: Backward) -> Backward:
        @functools.wraps(backward)
        def run(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
            if not torch.is_grad_enabled():
                return backward(ctx, gradient)
            output, inputs = plain(ctx)
            wanted = {i: x for i, x in enumerate(inputs) if x is not None and ctx.needs_input_grad[i]}
            gradients = torch.autograd.grad(output, list(wanted.values()), gradient, create_graph=True)
            by_input = dict(zip(wanted, gradients, strict=True))
            return tuple(by_input.get(i) for i in range(len(inputs)))

        return run

    return decorate
