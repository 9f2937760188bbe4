"""Score a checkpoint: `python -m fastfcn_pl.evaluate checkpoint=<path> [data.root=<dir>] [split=test]`."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from fastfcn_pl import launch


def evaluate(cfg: DictConfig) -> float:
    """Score `cfg.checkpoint` as it was trained, except for what `cfg` sets, and return the mIoU."""
    import lightning as L  # heavy imports stand here, so that --help and a typo at the root need not wait for them

    from fastfcn_pl import build, checkpoint, provenance, scoring, signatures

    content = checkpoint.read(cfg.checkpoint, cfg.data if "_target_" in cfg.data else None)
    run = as_trained(checkpoint.config_of(content), cfg)
    signatures.check(run)
    module = checkpoint.restore(content, run, cfg.checkpoint)
    datamodule = build.datamodule(run)
    checkpoint.check_classes(content, datamodule.spec, cfg.checkpoint)
    L.seed_everything(run.seed, workers=True, verbose=False)
    trainer = build.trainer(run)
    results = scoring.score(trainer, module, datamodule, cfg.split, cfg.boundary_ratio)
    results |= {"checkpoint": cfg.checkpoint, **provenance.environment()}
    if trainer.is_global_zero:
        scoring.report(results, module, cfg.run_dir)
    return results["mIoU"]


def as_trained(trained: DictConfig, cfg: DictConfig) -> DictConfig:
    """Return the configuration of the run that wrote the checkpoint, with what `cfg` sets in its place.

    A whole option (`data=camvid`) replaces the trained one; single keys (`data.root=...`) change it; null leaves it.
    """
    from fastfcn_pl import build

    run = trained.copy()
    for name in ("data", "protocol", "trainer"):
        build.override(run, name, cfg[name] or OmegaConf.create())
    run.update(callbacks=cfg.callbacks, logger={}, run_dir=cfg.run_dir)
    return OmegaConf.create(OmegaConf.to_container(run, resolve=True))  # type: ignore[return-value]


if __name__ == "__main__":
    launch.main("evaluate", evaluate)
