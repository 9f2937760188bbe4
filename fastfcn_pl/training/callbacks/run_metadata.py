"""Metadata that make a run comparable with others: its parts, data and code, and its best score so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning as L

from fastfcn_pl.core.provenance import git_commit
from fastfcn_pl.data.fingerprint import fingerprint
from fastfcn_pl.evaluation.protocols import protocol_name
from fastfcn_pl.training.callbacks import log_media
from fastfcn_pl.training.module import SegmentationModule

_PARTS = ("backbone", "neck", "head", "aux_head")


class RunFacts(L.Callback):
    """Log the parts, data and code of the run once, and `best_mIoU` with its `best_step` after each validation.

    `choices` are Hydra's, such as `model/neck: jpu`. A part without one, as in Python, is named by its class.
    """

    def __init__(self, *, choices: Mapping[str, str]) -> None:
        self.choices = choices
        self.best: dict[str, float] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        if trainer.is_global_zero and trainer.loggers:
            log_media.log_metadata(trainer, {**self._parts(pl_module), **_data(trainer), **_code(trainer, pl_module)})

    def _parts(self, pl_module: SegmentationModule) -> dict[str, str]:
        parts = {name: getattr(pl_module.model, name) for name in _PARTS}
        named = {name: self.choices.get(f"model/{name}", type(part).__name__) for name, part in parts.items()}
        backbone = pl_module.hparams["config"].get("model", {}).get("backbone", {})
        named["backbone"] = backbone.get(
            "name", named["backbone"]
        )  # the name of timm's network, whichever option it was composed from
        return {name: "none" if parts[name] is None else str(choice) for name, choice in named.items()}

    def on_validation_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        score = pl_module.scores.mean_iou
        if not trainer.sanity_checking and not math.isnan(score) and score > self.best.get("best_mIoU", -1):
            self.best = {"best_mIoU": score, "best_step": trainer.global_step}
            log_media.update_summary(trainer, self.best)

    def on_fit_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> None:  # also of a resumed run that was already done
        if (
            self.best and (logger := log_media.tensorboard_logger(trainer)) is not None
        ):  # its table of runs is sorted by a number
            logger.log_hyperparams(logger.hparams, {"best_mIoU": self.best["best_mIoU"]}, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.best)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = dict(state_dict)


def _data(trainer: L.Trainer) -> dict[str, Any]:
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    splits = {split: data.source(split) for split in (data.train_split, "val")}
    return {
        "data": data.spec.name,
        "train_split": data.train_split,
        "train_images": len(splits[data.train_split]),
        "val_images": len(splits["val"]),
        "data_fingerprint": fingerprint(data.spec, splits),
    }


def _code(trainer: L.Trainer, pl_module: SegmentationModule) -> dict[str, Any]:
    return {
        "protocol": protocol_name(pl_module.protocol),
        "commit": git_commit(),
        "seed": pl_module.seed,
        "world_size": trainer.world_size,
        "effective_batch_size": pl_module.effective_batch_size,
    }
