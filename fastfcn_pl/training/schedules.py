"""Learning-rate schedules by torch's own schedulers, and a linear warm-up before any of them.

A schedule is called with the optimizer and the number of steps that it spans. It scales the rate of each group.
"""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from fastfcn_pl.core.types import UserError


def constant(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Keep every rate."""
    return ConstantLR(optimizer, factor=1.0, total_iters=total_steps)


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    *,
    pct_start: float,
    div_factor: float,
    final_div_factor: float,
) -> LRScheduler:
    """Raise each rate from `1 / div_factor` of it, then lower it to `1 / final_div_factor` of where it began.

    It rises during the share `pct_start` of the steps, along cosines (arXiv 1708.07120). Momentum stays as it is.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer,
        peaks,
        total_steps,
        pct_start=pct_start,
        cycle_momentum=False,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )


class Warmup:
    """Linear rise to the rates with which a schedule begins, during a number of `steps`, `epochs` or a `share` of all.

    The first step has the part `start` of these rates, and the schedule spans the steps that remain (arXiv 1706.02677,
    section 2.2). There is none if all three lengths are null. Raises UserError if more than one is set, or for a value
    that is out of range.
    """

    def __init__(self, *, steps: int | None, epochs: float | None, share: float | None, start: float) -> None:
        lengths = {"steps": steps, "epochs": epochs, "share": share}
        given = [f"warmup.{name}={value}" for name, value in lengths.items() if value is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} exclude each other: set one of them to null")
        if any(value is not None and value < 0 for value in lengths.values()):
            raise UserError(f"{given[0]}: use a positive number, or null for no warm-up")
        if steps is not None and int(steps) != steps:
            raise UserError(f"warmup.steps={steps}: use a whole number")
        if not 0 < start <= 1:
            raise UserError(f"warmup.start={start}: use a number above 0, up to 1")
        self.steps, self.epochs, self.share, self.start = steps, epochs, share, start

    def length(self, total_steps: int, steps_per_epoch: int) -> int:
        """Return its number of steps; raises UserError if none of `total_steps` would remain for the schedule."""
        length = self.steps or round((self.epochs or 0) * steps_per_epoch) or round((self.share or 0) * total_steps)
        if length >= total_steps:
            raise UserError(
                f"the warm-up takes {length} steps, and training only {total_steps}: lower warmup.steps, warmup.epochs "
                "or warmup.share"
            )
        return length

    def before(self, schedule: LRScheduler, length: int) -> LRScheduler:
        """Return `length` steps of warm-up followed by `schedule`, which has been built for the steps that remain."""
        # Built after the schedule: one_cycle changes the rates from which it begins, and the warm-up rises to these.
        rise = LinearLR(schedule.optimizer, start_factor=self.start, total_iters=length)
        return SequentialLR(schedule.optimizer, [rise, schedule], [length])
