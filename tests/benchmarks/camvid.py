"""The study `camvid`, composed and read as `train` does it."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from fastfcn_pl.config import build, schema
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.engine import class_weights


def config(overrides: Sequence[str]) -> DictConfig:
    """Return the study's configuration, without a folder for the run."""
    schema.register()
    with initialize_config_dir(str(schema.CONF_DIR), version_base="1.3"):
        return compose("camvid", [*overrides, "run_dir=unset"])


def datamodule(cfg: DictConfig) -> SegmentationDataModule:
    """Build the data, and set the class weights of `cfg.loss` that come from it."""
    data = build.datamodule(cfg)
    class_weights.resolve(cfg, data)
    return data
