"""Stopping a run whose loss is not finite, with what a person needs to find out why."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor, nn

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.redaction import hide
from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.training.callbacks import log_media
from fastfcn_pl.training.module import SegmentationModule

REMEDY = "lower optimizer.lr, set trainer.gradient_clip_val=1, or trainer.precision=32-true where it is lower"
SPOILT = (
    "Weights are not finite: an earlier step spoilt them, by too large a learning rate or by a gradient that was not "
    "finite where its loss was (`trainer.detect_anomaly=true` finds the operation)."
)


class TerminateOnNaN(L.Callback):
    """Stop all ranks where the loss of a batch is NaN or Inf on any of them, before it changes a weight.

    Each rank whose loss it is first writes into `folder` the batch (`.pt`) and a page about it (`.md`): its files, the
    `count` largest gradients and weights, and the first layer whose output is not finite. W&B alerts the user; then all
    raise UserError.
    Where the loss is finite and a gradient is not, the scaler of 16-mixed precision skips the step. Without a scaler
    the weights are spoilt: the next loss shows it, and a checkpoint of them is not written but raises UserError, too.

    Losses are read from the device once a batch, between forward and backward, which waits for the forward pass.
    """

    _batch: dict[str, Tensor]
    _losses: list[dict[str, float]]
    """Of each rank, by name."""

    def __init__(self, *, folder: str, count: int) -> None:
        self.folder, self.count = Path(folder), count

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: SegmentationModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        self._batch = batch

    def on_before_backward(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: SegmentationModule, loss: Tensor
    ) -> None:
        names, values = zip(*pl_module.losses.items(), strict=True)  # `loss` may be what a scaler made of it
        ranks = loss.new_zeros(trainer.world_size, len(names), dtype=torch.float32)
        ranks[trainer.global_rank] = torch.stack(values)
        ranks = trainer.strategy.reduce(ranks, reduce_op="sum")
        self._losses = [dict(zip(names, rank, strict=True)) for rank in ranks.tolist()]

    def on_after_backward(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        bad = [rank for rank, losses in enumerate(self._losses) if not all(map(math.isfinite, losses.values()))]
        if bad:
            terms = ", ".join(f"{name} {value:.3g}" for name, value in self._losses[bad[0]].items())
            where = f" on rank {bad[0]}" if trainer.world_size > 1 else ""
            self._stop(trainer, pl_module, f"the loss is not finite{where} ({terms})", bad)

    def on_save_checkpoint(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: SegmentationModule, checkpoint: dict[str, Any]
    ) -> None:
        bad = [name for name, tensor in checkpoint["state_dict"].items() if not tensor.isfinite().all()]
        bad = trainer.strategy.broadcast(bad)  # rank 0's are what would be written
        if bad:
            self._stop(trainer, pl_module, f"{len(bad)} weights and buffers are not finite ({bad[0]}, ...)", [0])

    def _stop(self, trainer: L.Trainer, pl_module: SegmentationModule, cause: str, ranks: list[int]) -> None:
        """Write the page and the batch of each of `ranks`, and raise UserError on all."""
        page = self._page(trainer, pl_module, cause)  # on every rank: SyncBatchNorm asks the others
        folder = Path(os.path.relpath(self.folder))
        if trainer.global_rank in ranks:
            name = f"step_{trainer.global_step}_rank_{trainer.global_rank}"
            with atomic_write(folder / f"{name}.md") as hidden:
                hidden.write_text(page)
            with atomic_write(folder / f"{name}.pt") as hidden:
                torch.save({key: value.cpu() for key, value in self._batch.items()}, hidden)
        log_media.alert(trainer, "Training stopped", f"At step {trainer.global_step} {cause}: {REMEDY}.")
        trainer.strategy.barrier()  # the first to end would take the others, still writing, with it
        raise UserError(
            f"at step {trainer.global_step} {cause}: {REMEDY}; {folder} holds the batch and a page about it"
        )

    def _page(self, trainer: L.Trainer, pl_module: SegmentationModule, cause: str) -> str:
        weights = sizes(pl_module.state_dict().items())
        gradients = sizes((n, p.grad) for n, p in pl_module.named_parameters() if p.grad is not None)
        rates = [f"{group['name']} {group['lr']:.3g}" for group in trainer.optimizers[0].param_groups]
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        sections = [
            f"# Step {trainer.global_step}, epoch {trainer.current_epoch}: {cause}",
            _table(("loss", "value"), [(k, f"{v:.6g}") for k, v in self._losses[trainer.global_rank].items()]),
            f"Learning rates: {', '.join(rates)}. Precision: {trainer.precision}.",
            *([SPOILT] if not all(p.isfinite().all() for p in pl_module.parameters()) else []),
            self._first_layer(trainer, pl_module),
            "## Batch",
            "\n".join(self._files(trainer)),
            "## Largest gradients" + (f", of the loss times {scaler.get_scale():g}" if scaler else ""),
            _largest(gradients, self.count),
            "## Largest weights and buffers (the batch has passed through those of batch norms)",
            _largest(weights, self.count),
        ]
        return "\n\n".join(sections) + "\n"

    def _first_layer(self, trainer: L.Trainer, pl_module: SegmentationModule) -> str:
        def forward() -> None:
            eager = torch.compiler.set_stance("force_eager")  # what is compiled does not call hooks
            with eager, torch.no_grad(), trainer.precision_plugin.forward_context():
                pl_module.model(pl_module.normalize(self._batch["image"]))

        layer = first_not_finite(pl_module, forward)
        if layer is None:
            return "Every layer's output is finite when the batch is put through the network again: look at the loss."
        return f"The first layer whose output is not finite: {layer}."

    def _files(self, trainer: L.Trainer) -> Iterator[str]:
        source = trainer.train_dataloader.dataset.source  # type: ignore[union-attr]
        for index, target in zip(self._batch["index"].tolist(), self._batch["target"], strict=True):
            names = hide(", ".join(map(str, source.files(index))) or source.name(index))
            yield f"- {names}: {int((target != IGNORE).sum())} of {target.numel()} pixels are labelled"


def first_not_finite(model: nn.Module, forward: Callable[[], None]) -> str | None:
    """Run `forward` and describe the first layer of `model` that returns NaN or Inf, None where none does."""
    found: list[str] = []

    def watch(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if not found and not all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
            peak = max((row.value for row in sizes(("", tensor) for tensor in _tensors(inputs))), default=0)
            found.append(f"{name} ({type(layer).__name__}), whose input's largest value is {peak:.3g}")

    hooks = [layer.register_forward_hook(partial(watch, name)) for name, layer in model.named_modules()]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


class Size(NamedTuple):
    """The largest finite absolute `value` of the tensor `name`, and how many of its values are `not_finite`."""

    name: str
    value: float
    not_finite: int


def sizes(tensors: Iterable[tuple[str, Tensor]]) -> list[Size]:
    """Return the sizes of those `tensors` that hold floating-point values, in their order."""
    found = []
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            finite = tensor.isfinite()
            value = tensor.abs().where(finite, 0).max()
            found.append(Size(name, value.item(), tensor.numel() - int(finite.sum())))
    return found


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _largest(rows: list[Size], count: int) -> str:
    bad = [row.name for row in rows if row.not_finite]
    some = ": " + ", ".join([*bad[:count], *(["..."] if len(bad) > count else [])]) if 0 < len(bad) < len(rows) else ""
    top = sorted((row for row in rows if row.value > 0), key=lambda row: -row.value)[:count]
    table = _table(("tensor", "largest finite value"), [(row.name, f"{row.value:.3g}") for row in top])
    return "\n\n".join([f"{len(bad)} of {len(rows)} hold NaN or Inf{some}.", *([table] if top else [])])


def _table(columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
