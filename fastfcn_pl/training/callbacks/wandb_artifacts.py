"""The files of a run that W&B keeps: the configuration always, code and weights when asked."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
import wandb
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

import fastfcn_pl
from fastfcn_pl.core.redaction import redacted
from fastfcn_pl.training.callbacks import log_media
from fastfcn_pl.training.module import SegmentationModule

CONFIG = "resolved_config.yaml"
_OF_TRAINING = ("optimizer_states", "lr_schedulers", "callbacks", "loops")


class RunFiles(L.Callback):
    """Give W&B the whole configuration as `resolved_config.yaml`.

    With `code`, also this package's sources. With `checkpoint`, also the weights of the best validation, when training
    ends, as the artifact `model-<run id>` with the aliases `best` and `step-<step>`. In its configuration, too, secrets
    are hidden. Both work offline, unlike `log_model` of Lightning's logger.
    """

    def __init__(self, *, code: bool, checkpoint: bool) -> None:
        self.code, self.checkpoint = code, checkpoint

    def on_fit_start(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        run = log_media.wandb_run(trainer)
        if run is None or run.disabled:
            return
        file = Path(run.dir, CONFIG)
        file.write_text(yaml.safe_dump(redacted(pl_module.hparams["config"]), sort_keys=False))
        run.save(str(file), base_path=run.dir, policy="now")
        if self.code:
            run.log_code(str(Path(fastfcn_pl.__file__).parent), name=f"code-{run.id}")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        run, keeper = log_media.wandb_run(trainer), trainer.checkpoint_callback
        if not self.checkpoint or run is None or run.disabled or not isinstance(keeper, ModelCheckpoint):
            return
        if not Path(keeper.best_model_path).is_file():
            return
        content = torch.load(keeper.best_model_path, map_location="cpu", weights_only=True)
        content = {key: value for key, value in content.items() if key not in _OF_TRAINING}
        content["hyper_parameters"]["config"] = redacted(content["hyper_parameters"]["config"])
        score = {} if keeper.best_model_score is None else {str(keeper.monitor): float(keeper.best_model_score)}
        artifact = wandb.Artifact(f"model-{run.id}", "model", metadata=score)
        with artifact.new_file("best.ckpt", mode="wb") as file:
            torch.save(content, file)
        run.log_artifact(artifact, aliases=["best", f"step-{content['global_step']}"])
