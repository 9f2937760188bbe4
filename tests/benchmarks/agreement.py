"""Losses of 20 steps of ours and of the published: `python -m tests.benchmarks.agreement [page [precision [size]]]`.

Those of `tests.benchmarks.training`, with REFERENCE=<a checkout of wuhuikai/FastFCN>, from the same weights on the same
images. Rounding makes them drift apart, so that in float32 the published ones stand beside themselves, too, from
weights that are off by as much as rounding does. In float64 rounding is seen only after ten steps: a difference before
would be one of the formulas.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from fastfcn_pl.core.tables import markdown_table
from tests.benchmarks.measure import machine
from tests.benchmarks.published import published_network
from tests.benchmarks.report import report
from tests.benchmarks.training import CLASSES, Step, batches, ours, published

STEPS, APART = 20, 1e-4
_SHOWN = (1, 2, 3, 5, 10, STEPS)
_SIZES = {"float32": 480, "float64": 160}  # the published depthwise convolutions take minutes in it


def main(file: str | None = None, precision: str = "float32", size: int | None = None) -> str:
    """Measure, print the table, and write it into `file`; images are of `size` x `size`."""
    size = _SIZES[precision] if size is None else size
    dtype = getattr(torch, precision)
    with torch.backends.cudnn.flags(allow_tf32=False):
        base = losses_of_steps(published, size, dtype)
        others = {"ours": losses_of_steps(ours, size, dtype)}
        if dtype == torch.float32:
            others["published, weights off by 6e-8"] = losses_of_steps(published, size, dtype, 6e-8)
    rows = []
    for name, losses in others.items():
        apart = (losses / base - 1).abs()
        above = (apart > APART).nonzero()[:, 0]
        first = f"step {above[0] + 1}" if len(above) else "never"
        rows.append([name, *(f"{apart[n - 1]:.1e}" for n in _SHOWN), f"{apart.max():.1e}", first])
    heads = ["from the published", *(f"step {n}" for n in _SHOWN), "most", f"first above {APART:.0e}"]
    about = (
        f"2 images of {size}x{size}, {CLASSES} classes, {precision}: how far losses are apart, relatively. {machine()}"
    )
    text = f"{about}\n\n{markdown_table(heads, rows)}"
    command = f"REFERENCE=<checkout> python -m tests.benchmarks.agreement <page> {precision} {size}"
    report(file, f"Losses of {STEPS} training steps, {precision}", command, text)
    return text


def losses_of_steps(make: Callable[..., Step], size: int, dtype: torch.dtype, off: float = 0.0) -> Tensor:
    """Return a contender's losses `(STEPS,)`, from the published code's weights, each `off` by that share."""
    torch.manual_seed(0)
    state = published_network("encnet_r50", CLASSES).state_dict()
    for key, value in state.items():
        if value.is_floating_point():
            state[key] = (value * (1 + off * torch.randn_like(value))).to(dtype)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        step = make("32-true", state)
        return torch.stack([step((images.to(dtype), target)) for images, target in batches(STEPS, size)]).cpu()
    finally:
        torch.set_default_dtype(default)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
