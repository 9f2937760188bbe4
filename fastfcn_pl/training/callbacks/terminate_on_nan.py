"""Stop a run whose loss is not finite, and write a diagnosis."""

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
from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.training.callbacks import log_media
from fastfcn_pl.training.module import SegmentationModule

REMEDY = "lower optimizer.lr, set trainer.gradient_clip_val=1, or use trainer.precision=32-true if it is lower"
BAD_WEIGHTS = (
    "Weights are not finite after an earlier step: the learning rate was too large, or the loss was finite but its "
    "gradient was not (`trainer.detect_anomaly=true` finds the operation)."
)


class TerminateOnNaN(L.Callback):
    """Stop all ranks before the optimizer step if the loss of a batch is NaN or Inf on any of them.

    Each rank with such a loss writes the batch (`.pt`) and a page about it (`.md`) to `folder`. The page lists the
    image files, the `count` largest gradients and weights, and the first layer with an output that is not finite. Then
    W&B sends an alert, and all ranks raise UserError.

    If the loss is finite but a gradient is not, the scaler of 16-mixed precision skips the step. Without a scaler the
    step makes weights NaN or Inf. The next loss shows that; saving a checkpoint of such weights raises UserError, too.

    Reading the losses once per batch, between forward and backward, synchronizes with the device.
    """

    _batch: dict[str, Tensor]
    _losses: list[dict[str, float]]
    """Losses by name, for each rank."""

    def __init__(self, *, folder: str, count: int) -> None:
        self.folder, self.count = Path(folder), count

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: SegmentationModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        self._batch = batch

    def on_before_backward(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: SegmentationModule, loss: Tensor
    ) -> None:
        names, values = zip(*pl_module.losses.items(), strict=True)  # `loss` may have been scaled for 16-mixed
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
        bad = trainer.strategy.broadcast(bad)  # rank 0 writes the checkpoint
        if bad:
            self._stop(trainer, pl_module, f"{len(bad)} weights and buffers are not finite ({bad[0]}, ...)", [0])

    def _stop(self, trainer: L.Trainer, pl_module: SegmentationModule, cause: str, ranks: list[int]) -> None:
        """Write the batch and the page on each of `ranks`, then raise UserError on all ranks."""
        page = self._page(trainer, pl_module, cause)  # on every rank, since the forward pass may have a SyncBatchNorm
        folder = Path(os.path.relpath(self.folder))
        if trainer.global_rank in ranks:
            name = f"step_{trainer.global_step}_rank_{trainer.global_rank}"
            with atomic_write(folder / f"{name}.md") as hidden:
                hidden.write_text(page)
            with atomic_write(folder / f"{name}.pt") as hidden:
                torch.save({key: value.cpu() for key, value in self._batch.items()}, hidden)
        log_media.alert(trainer, "Training stopped", f"At step {trainer.global_step} {cause}: {REMEDY}.")
        trainer.strategy.barrier()  # the first rank that exits would kill others that are still writing
        raise UserError(f"at step {trainer.global_step} {cause}: {REMEDY}; the batch and a diagnosis are in {folder}")

    def _page(self, trainer: L.Trainer, pl_module: SegmentationModule, cause: str) -> str:
        weights = magnitudes(pl_module.state_dict().items())
        gradients = magnitudes((n, p.grad) for n, p in pl_module.named_parameters() if p.grad is not None)
        rates = [f"{group['name']} {group['lr']:.3g}" for group in trainer.optimizers[0].param_groups]
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        sections = [
            f"# Step {trainer.global_step}, epoch {trainer.current_epoch}: {cause}",
            markdown_table(("loss", "value"), [(k, f"{v:.6g}") for k, v in self._losses[trainer.global_rank].items()]),
            f"Learning rates: {', '.join(rates)}. Precision: {trainer.precision}.",
            *([BAD_WEIGHTS] if not all(p.isfinite().all() for p in pl_module.parameters()) else []),
            self._first_layer(trainer, pl_module),
            "## Batch",
            "\n".join(self._files(trainer)),
            "## Largest gradients" + (f", with the loss scaled by {scaler.get_scale():g}" if scaler else ""),
            _largest(gradients, self.count),
            "## Largest weights and buffers (batch norm statistics include this batch)",
            _largest(weights, self.count),
        ]
        return "\n\n".join(sections) + "\n"

    def _first_layer(self, trainer: L.Trainer, pl_module: SegmentationModule) -> str:
        def forward() -> None:
            eager = torch.compiler.set_stance("force_eager")  # compiled modules do not call hooks
            with eager, torch.no_grad(), trainer.precision_plugin.forward_context():
                pl_module.model(pl_module.normalize(self._batch["image"]))

        layer = first_not_finite(pl_module, forward)
        if layer is None:
            return "Every layer's output is finite in a second forward pass of the batch: look at the loss."
        return f"First layer with an output that is not finite: {layer}."

    def _files(self, trainer: L.Trainer) -> Iterator[str]:
        source = trainer.train_dataloader.dataset.source  # type: ignore[union-attr]
        for index, target in zip(self._batch["index"].tolist(), self._batch["target"], strict=True):
            names = hide(", ".join(map(str, source.files(index))) or source.name(index))
            yield f"- {names}: {int((target != IGNORE).sum())} of {target.numel()} pixels are labelled"


def first_not_finite(model: nn.Module, forward: Callable[[], None]) -> str | None:
    """Run `forward` and describe the first layer of `model` that returns NaN or Inf; None if all are finite."""
    descriptions: list[str] = []

    def check(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if not descriptions and not all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
            peak = max((row.max_abs for row in magnitudes(("", tensor) for tensor in _tensors(inputs))), default=0)
            descriptions.append(f"{name} ({type(layer).__name__}), with {peak:.3g} as its largest input")

    hooks = [layer.register_forward_hook(partial(check, name)) for name, layer in model.named_modules()]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return descriptions[0] if descriptions else None


class Magnitude(NamedTuple):
    """Largest finite absolute value of the tensor `name`, and the number of its values that are NaN or Inf."""

    name: str
    max_abs: float
    not_finite: int


def magnitudes(tensors: Iterable[tuple[str, Tensor]]) -> list[Magnitude]:
    """Return the magnitudes of the floating-point tensors among `tensors`, in order."""
    rows = []
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            finite = tensor.isfinite()
            max_abs = tensor.abs().where(finite, 0).max()
            rows.append(Magnitude(name, max_abs.item(), tensor.numel() - int(finite.sum())))
    return rows


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _largest(rows: list[Magnitude], count: int) -> str:
    """Return a table of the `count` largest tensors, after the names of those that hold NaN or Inf."""
    bad = [row.name for row in rows if row.not_finite]
    names = [*bad[:count], *(["..."] if len(bad) > count else [])]
    listed = f": {', '.join(names)}" if 0 < len(bad) < len(rows) else ""
    top = sorted((row for row in rows if row.max_abs > 0), key=lambda row: -row.max_abs)[:count]
    table = markdown_table(("tensor", "largest finite value"), [(row.name, f"{row.max_abs:.3g}") for row in top])
    return "\n\n".join([f"{len(bad)} of {len(rows)} hold NaN or Inf{listed}.", *([table] if top else [])])
