"""Upload of the configuration, and optionally of code and weights, to the loggers that keep files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

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
_TRAINING_STATE = ("optimizer_states", "lr_schedulers", "callbacks", "loops")


class RunFiles(L.Callback):
    """Upload the whole configuration to W&B as `resolved_config.yaml`, without secrets.

    `code` adds this package's sources. `checkpoint` adds the best weights at the end of training: to W&B as the
    artifact `model-<run id>` with the aliases `best` and `step-<step>`, to MLflow and Trackio as `best.ckpt`. Unlike
    `log_model` of Lightning's loggers, both work offline.
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
        run, best = log_media.wandb_run(trainer), trainer.checkpoint_callback
        to_wandb = run is not None and not run.disabled
        if not self.checkpoint or not isinstance(best, ModelCheckpoint) or not Path(best.best_model_path).is_file():
            return
        if not to_wandb and not log_media.media_loggers(trainer):
            return
        content = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        content = {key: value for key, value in content.items() if key not in _TRAINING_STATE}
        content["hyper_parameters"]["config"] = redacted(content["hyper_parameters"]["config"])
        with TemporaryDirectory() as folder:
            file = Path(folder, "best.ckpt")
            torch.save(content, file)
            log_media.log_file(trainer, file, "best.ckpt")
            if to_wandb:
                score = {} if best.best_model_score is None else {str(best.monitor): float(best.best_model_score)}
                artifact = wandb.Artifact(f"model-{run.id}", "model", metadata=score)
                artifact.add_file(str(file), policy="mutable")
                run.log_artifact(artifact, aliases=["best", f"step-{content['global_step']}"])
