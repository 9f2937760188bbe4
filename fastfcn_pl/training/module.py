"""The LightningModule: a network, its loss and its scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.acceleration.training import memory_format, optimize_for_training
from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.data.samplers import BLANK
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostics
from fastfcn_pl.evaluation.formatting import part_of_split
from fastfcn_pl.evaluation.metrics import ConfusionMatrix, Scores
from fastfcn_pl.evaluation.protocols import Protocol
from fastfcn_pl.evaluation.score_map import ScoreMap
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.models.unused_weights import freeze_unused
from fastfcn_pl.training.normalization import statistics
from fastfcn_pl.training.parameter_table import print_parameters
from fastfcn_pl.training.schedules import Warmup


class SegmentationModule(L.LightningModule):
    """Trains and scores `model`. Batches hold images as they are read, which are normalised here, on the device.

    `config` is the run's whole configuration as plain containers: it is saved with the weights, so that a checkpoint
    rebuilds itself. `make_optimizer(model, effective_batch_size)` and `make_scheduler(optimizer, steps)` are
    called when training starts, the latter for the steps after `warmup`. With `compile` the network is compiled then,
    for that run only. Without `loss`, `make_optimizer` and `make_scheduler` the module only scores and predicts. If
    `channels_last` is a wrong memory format to train in, training uses another, see `acceleration.training`. Without
    `accelerate` the network runs as it is written, in training and in the final score.
    """

    mean: Tensor
    std: Tensor
    losses: dict[str, Tensor]
    """The weighted sum `loss` and each term by name, not weighted, of the last training batch."""

    def __init__(
        self,
        model: Segmenter,
        loss: nn.Module | None,
        protocol: Protocol,
        spec: DatasetSpec,
        make_optimizer: Callable[[nn.Module, int], Optimizer] | None,
        make_scheduler: Callable[[Optimizer, int], LRScheduler] | None,
        channels_last: bool,
        compile: bool,
        config: dict[str, Any],
        accelerate: bool = True,
        warmup: Warmup | None = None,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.protocol, self.spec = model, loss, protocol, spec
        self.make_optimizer, self.make_scheduler, self.warmup = make_optimizer, make_scheduler, warmup
        self.channels_last, self.compile_to_train, self.accelerate = channels_last, compile, accelerate
        self.memory_format = memory_format(channels_last)
        model.to(memory_format=self.memory_format)
        self.save_hyperparameters({"config": config, "spec": spec.to_dict()}, logger=False)
        self.confusion = ConfusionMatrix(spec.num_classes)
        self.diagnostics: Diagnostics | None = None
        self.scored_images, self.split_images, self.scored_step = 0, 0, -1
        self._tested: list[Segmenter] = []  # a list, so that its weights are none of the module's
        self.seed: int = config.get("seed", 0)
        self.total_steps: int | None = None
        self.warmup_steps: int | None = None
        for name, values in zip(("mean", "std"), statistics(model, spec), strict=True):
            self.register_buffer(name, values.view(1, -1, 1, 1), persistent=False)
        model.takes_rgb = spec.bands is None

    def normalize(self, images: Tensor) -> Tensor:
        """Return normalised floats of images `(B, C, H, W)` as they are read, in the memory format of the weights."""
        normalized = (images.to(self.mean.dtype) - self.mean) / self.std
        return normalized.contiguous(memory_format=self.memory_format)

    def setup(self, stage: str) -> None:
        """Freeze unused weights and optimize the others for training, before anything else holds them."""
        if stage == "fit":
            if (unused := freeze_unused(self.model)) and self.trainer.is_global_zero:
                print(f"no output depends on {len(unused)} weights, such as {unused[0]}: they are not trained")
            self.memory_format = optimize_for_training(
                self.model,
                device=self.trainer.strategy.root_device,
                precision=self.trainer.precision,
                channels_last=self.channels_last,
                accelerate=self.accelerate,
            )

    def on_fit_start(self) -> None:
        """Compile the network in place, after the callbacks that look into it; the names of its weights stay."""
        if self.compile_to_train:
            self.model.compile()

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Make random numbers of the network, such as dropout's, depend only on (seed, epoch, batch, rank).

        A resumed run needs no generator's state then, and ranks draw different numbers. The gradients of the previous
        step are freed here, since Lightning would keep them through the forward pass.
        """
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.zero_grad()
        key = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        try:
            output = self.model(self.normalize(batch["image"]))
        except ValueError as error:
            if "more than 1 value per channel" in str(error):  # torch's batch norm, of a map of one pixel
                raise UserError(
                    f"data.batch_size={len(batch['image'])}: batch norm of a map that is pooled to one pixel needs two "
                    "images at least: raise the batch size, or use a neck and a head without pooling, such as "
                    "model/neck=fpn model/head=fcn"
                ) from error
            raise
        assert self.loss is not None
        total, terms = self.loss(output, batch["target"], self.model.align_corners)
        self.losses = {name: value.detach() for name, value in {"loss": total, **terms}.items()}
        for name, value in self.losses.items():
            bar = name == "loss"
            self.log(f"train/{name}", value, batch_size=len(batch["image"]), sync_dist=True, prog_bar=bar)
        return total

    def predict(self, batch: dict[str, Tensor]) -> ScoreMap:
        """Return class scores at the label's size, by this module's protocol."""
        height, width = batch["target"].shape[-2:]
        model = self._tested[0] if self._tested else self.model
        return self.protocol(model, self.normalize(batch["image"]), (height, width))

    def _score(self, batch: dict[str, Tensor]) -> dict[str, Tensor] | None:
        if batch["index"][0] == BLANK:
            return None
        scores = self.predict(batch)
        prediction = self.diagnostics.add(scores, batch["target"]) if self.diagnostics else scores.labels()
        self.confusion.update(prediction, batch["target"])
        return {"prediction": prediction}  # what callbacks draw

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor] | None:
        return self._score(batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor] | None:
        return self._score(batch)

    def on_test_start(self) -> None:
        """Optimize the network for the final score; validations during training are too short to be worth it."""
        with self.trainer.precision_plugin.forward_context():
            self._tested = [optimize_for_inference(self.model, device=self.device, accelerate=self.accelerate)]

    def on_test_end(self) -> None:
        self._tested = []

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("final")

    def _log_scores(self, stage: str) -> None:
        """Log the scores of all ranks' pixels; each rank computes the same ones."""
        matrix, images = self.confusion.compute()
        self.confusion.reset()
        self.scores, self.scored_images = Scores.of(matrix), int(images)
        loader: Any = self.trainer.val_dataloaders if stage == "val" else self.trainer.test_dataloaders
        self.split_images = len(loader.dataset)
        if not self.trainer.sanity_checking:
            self.scored_step = self.global_step
        self.log(f"{stage}/mIoU", self.scores.mean_iou, prog_bar=True)
        values = {f"{stage}/{key}": getattr(self.scores, key) for key in ("pixel_accuracy", "mean_accuracy")}
        per_class = zip(self.spec.classes, self.scores.iou.tolist(), strict=True)
        values |= {f"{stage}/IoU/{name}": iou for name, iou in per_class}
        if self.diagnostics:
            values |= {f"{stage}/{key}": score for key, score in self.diagnostics.finish().items()}
        self.log_dict(values)

    @property
    def scored_part(self) -> str:
        """The share of the split that the latest scores are of, such as `3 of 101 images`; empty if all of it."""
        return part_of_split(self.scored_images, self.split_images)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError("a schedule needs an end: set trainer.max_epochs or trainer.max_steps")
        total, warmup = int(steps), self._warmup_length(int(steps))
        if (self.total_steps, self.warmup_steps) not in ((None, None), (total, warmup)):
            raise UserError(
                f"the run was to take {self.total_steps} steps and to warm up for {self.warmup_steps}, which its "
                f"learning rate follows, and now {total} and {warmup}: set epochs, warmup, batch size and devices as "
                "before, or start a new run from its weights with checkpoint="
            )
        self.total_steps, self.warmup_steps = total, warmup
        assert self.make_optimizer is not None
        assert self.make_scheduler is not None
        optimizer = self.make_optimizer(self.model, self.effective_batch_size)
        if self.trainer.is_global_zero:
            print(self._batch_line())
            print_parameters(self.model, optimizer)
        scheduler = self.make_scheduler(optimizer, total - warmup)
        if self.warmup is not None and warmup:
            scheduler = self.warmup.before(scheduler, warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _warmup_length(self, total_steps: int) -> int:
        if self.warmup is None or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return 0
        steps_per_epoch = 0
        if self.warmup.epochs:
            self.trainer.fit_loop.setup_data()  # Lightning has not yet if the run is bounded by steps
            steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        return self.warmup.length(total_steps, steps_per_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["total_steps"], checkpoint["scored_step"] = self.total_steps, self.scored_step
        checkpoint["warmup_steps"] = self.warmup_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.total_steps = checkpoint["total_steps"]
        self.warmup_steps = checkpoint.get("warmup_steps", 0)  # missing in checkpoints written before there was one
        self.scored_step = checkpoint.get("scored_step", -1)  # missing in checkpoints written before it was saved

    def _batch_line(self) -> str:
        """Say the effective batch, and the batch that the learning rate is meant for."""
        trainer, batch = self.trainer, self.effective_batch_size
        factors = f"{trainer.world_size} devices, {trainer.accumulate_grad_batches} accumulated"
        meant: int | None = getattr(self.make_optimizer, "keywords", {}).get("base_batch_size")
        if meant is None:
            scaling = "not scaled with it (optimizer.base_batch_size=null)"
        elif meant == batch:
            scaling = "as in the recipe"
        else:
            scaling = f"scaled by {batch}/{meant}, since the recipe's batch is {meant}"
        return f"effective batch: {batch} images ({factors}); learning rate: {scaling}"

    @property
    def effective_batch_size(self) -> int:
        """Images to an optimizer step, over devices and accumulated batches."""
        per_device: int = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        return per_device * self.trainer.world_size * self.trainer.accumulate_grad_batches
