"""Train, then score the best checkpoint: `python -m fastfcn_pl.train [group=option] [key=value]`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fastfcn_pl import launch
from fastfcn_pl.contracts import UserError

if TYPE_CHECKING:
    import lightning as L

    from fastfcn_pl.module import SegmentationModule


def train(cfg: DictConfig) -> float:
    """Run the experiment that `cfg` describes, write its folder, and return the mIoU of its best checkpoint."""
    import lightning as L  # heavy imports stand here, so that --help and a typo at the root need not wait for them

    from fastfcn_pl import build, scoring
    from fastfcn_pl.loggers import closing_wandb, how_to_view

    build.check(cfg)
    if cfg.seed < 0:
        raise UserError(f"seed={cfg.seed}: use 0 or a larger number")
    environment = scoring.environment()  # now: the checkout may be another one when training ends
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = build.datamodule(cfg)
    datamodule.prepare_data()
    module = build.module(cfg, datamodule.spec)
    trainer = build.trainer(cfg)
    with closing_wandb():
        for logger in trainer.loggers:
            logger.log_hyperparams({**build.plain(cfg), **environment})
        if view := how_to_view():
            print(f"W&B run: {view}")
        started = time.perf_counter()
        trainer.fit(module, datamodule=datamodule)
        seconds = round(time.perf_counter() - started, 1)
        return score_best(cfg, trainer, module, {"train_seconds": seconds, **environment})


def score_best(cfg: DictConfig, trainer: L.Trainer, trained: SegmentationModule, about: dict[str, Any]) -> float:
    """Score the best checkpoint of a finished run on `val`, write the results, with what is said `about` it."""
    from fastfcn_pl import checkpoint, scoring
    from fastfcn_pl.loggers import how_to_view
    from fastfcn_pl.models.cost import cost

    steps, epochs = trainer.global_step, trainer.current_epoch
    best = best_checkpoint(cfg, trainer, trained)
    content = checkpoint.read(best)
    module = checkpoint.restore(content, checkpoint.config_of(content), best)
    total = cost(module.model, (512, 512))["total"]
    results = scoring.score(trainer, module, trainer.datamodule, "val")  # type: ignore[attr-defined]
    results |= {"parameters": total.parameters, "gmacs": total.gmacs}
    results |= {"checkpoint": best, "checkpoint_step": content["global_step"]}
    results |= {"steps": steps, "epochs": epochs, "seed": cfg.seed, "choices": launch.choices(), **about}
    if trainer.is_global_zero:
        scoring.report(results, cfg.run_dir, {"W&B run": how_to_view()})
    return float("nan") if results["mIoU"] is None else results["mIoU"]


def best_checkpoint(cfg: DictConfig, trainer: L.Trainer, trained: SegmentationModule) -> str:
    """Return the path of the best weights, among which the last are, also where no validation came behind them."""
    last = os.path.relpath(f"{cfg.run_dir}/checkpoints/last.ckpt")
    trainer.save_checkpoint(last)
    keeper: Any = trainer.checkpoint_callback
    if not getattr(keeper, "best_model_path", ""):
        return last
    if trained.scored_step != trainer.global_step:
        trainer.validate(trained, datamodule=trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
        score = trainer.callback_metrics[keeper.monitor]
        if (score - keeper.best_model_score) * (1 if keeper.mode == "max" else -1) > 0:
            return last
    return os.path.relpath(keeper.best_model_path)


if __name__ == "__main__":
    launch.main("train", train)
