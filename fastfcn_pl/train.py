"""Train, then score the best checkpoint: `python -m fastfcn_pl.train [group=option] [key=value]`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fastfcn_pl import launch

if TYPE_CHECKING:
    import lightning as L


def train(cfg: DictConfig) -> float:
    """Run the experiment that `cfg` describes, write its folder, and return the mIoU of its best checkpoint."""
    import lightning as L  # heavy imports stand here, so that --help and a typo at the root need not wait for them

    from fastfcn_pl import build, scoring
    from fastfcn_pl.loggers import closing_wandb, how_to_view

    build.check(cfg)
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
        return score_best(cfg, trainer, {"train_seconds": seconds, **environment})


def score_best(cfg: DictConfig, trainer: L.Trainer, about: dict[str, Any]) -> float:
    """Score the best checkpoint of a finished run on `val`, write the results, with what is said `about` it."""
    from fastfcn_pl import checkpoint, scoring
    from fastfcn_pl.loggers import how_to_view
    from fastfcn_pl.models.cost import cost

    steps, epochs = trainer.global_step, trainer.current_epoch
    best = best_checkpoint(cfg, trainer)
    module = checkpoint.load(best)
    total = cost(module.model, (512, 512))["total"]
    results = scoring.score(trainer, module, trainer.datamodule, "val")  # type: ignore[attr-defined]
    results |= {"parameters": total.parameters, "gmacs": total.gmacs}
    results |= {"checkpoint": best, "steps": steps, "epochs": epochs, "seed": cfg.seed}
    results |= {"choices": launch.choices(), **about}
    if trainer.is_global_zero:
        scoring.report(results, cfg.run_dir, {"W&B run": how_to_view()})
    return results["mIoU"]


def best_checkpoint(cfg: DictConfig, trainer: L.Trainer) -> str:
    """Return the path of the best checkpoint; of the last weights, saved now, where no validation chose a best."""
    best: str = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if not best:
        best = f"{cfg.run_dir}/checkpoints/last.ckpt"
        trainer.save_checkpoint(best)
    return os.path.relpath(best)


if __name__ == "__main__":
    launch.main("train", train)
