"""Objects from a configuration: the only caller of `hydra.utils.instantiate`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning as L
import torch
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fastfcn_pl.config import lightning_messages, options, trainer_flags
from fastfcn_pl.config.precedence import HYDRA_KEYS
from fastfcn_pl.config.stored_config import storable_config
from fastfcn_pl.config.validation import import_target, parameters
from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostics
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.training.callbacks.end_workers import EndWorkers
from fastfcn_pl.training.callbacks.rank_agreement import RankAgreement
from fastfcn_pl.training.checkpoint_io import StagedCheckpointIO
from fastfcn_pl.training.distributed import Started
from fastfcn_pl.training.freezing import freeze
from fastfcn_pl.training.module import SegmentationModule
from fastfcn_pl.training.sync_batch_norm import SyncBatchNorms

lightning_messages.hide()


Config = DictConfig
TO_PREDICT = ("model", "protocol", "channels_last")
"""Parts of a configuration that `module_to_predict` needs."""
# Raised by code that meets a value of another kind than it was written for.
BAD_DATA_ERRORS = (
    *(AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError),
    *(HydraException, OmegaConfBaseException),
)


def build(node: DictConfig, *args: Any) -> Any:
    """Build the object that `node` describes; a UserError of its code is raised as it is."""
    try:
        return instantiate(node, *args, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None


def datamodule(cfg: DictConfig) -> SegmentationDataModule:
    """Build the data module of `cfg.data`."""
    return build(cfg.data, cfg.seed)


def model(cfg: DictConfig, num_classes: int) -> Segmenter:
    """Build the network of `cfg.model`; raises UserError if a weight of it is empty."""
    network = build(cfg.model, num_classes)
    empty = next((name for name, weight in network.named_parameters() if weight.numel() == 0), None)
    if empty is not None:
        part = empty.partition(".")[0]
        raise UserError(f"model.{part}: {empty} has no elements, since a number of channels is 0: use a larger one")
    return network


def module(cfg: DictConfig, spec: DatasetSpec) -> SegmentationModule:
    """Build network, loss, protocol and optimizer of `cfg`, for the classes of `spec`."""
    network = model(cfg, spec.num_classes)
    if frozen := cfg.get("freeze"):  # missing in checkpoints written before this key existed
        freeze(network, frozen)
    return SegmentationModule(
        network,
        loss=build(cfg.loss, network.outputs),
        protocol=build(cfg.protocol),
        spec=spec,
        make_optimizer=build(cfg.optimizer),
        make_scheduler=build(cfg.scheduler),
        channels_last=cfg.channels_last,
        compile=cfg.get("compile", False),  # of which checkpoints from before it say nothing
        config=storable_config(cfg),
        accelerate=cfg.get("accelerate", True),  # missing in checkpoints written before this key existed
        warmup=build(cfg.warmup) if cfg.get("warmup") else None,  # likewise
    )


def module_to_predict(cfg: DictConfig, spec: DatasetSpec, config: dict[str, Any]) -> SegmentationModule:
    """Build a module that only scores and predicts: network and protocol of `cfg`, in a run configured by `config`."""
    return SegmentationModule(
        model(cfg, spec.num_classes),
        loss=None,
        protocol=build(cfg.protocol),
        spec=spec,
        make_optimizer=None,
        make_scheduler=None,
        channels_last=cfg.channels_last,
        compile=False,
        config=config,
        accelerate=cfg.get("accelerate", True),
    )


def diagnostics(cfg: DictConfig, num_classes: int) -> Diagnostics | None:
    """Build the diagnostics of `cfg`; None without any."""
    built = {str(name): build(node, num_classes) for name, node in (cfg.get("diagnostics") or {}).items() if node}
    return Diagnostics(built) if built else None


def outline(cfg: DictConfig, num_classes: int) -> dict[str, torch.Tensor] | None:
    """Return the weights of `module_to_predict` on the meta device, by name; None if a part cannot be built there."""
    try:
        with torch.device("meta"):
            return {f"model.{name}": tensor for name, tensor in model(cfg, num_classes).state_dict().items()}
    except InstantiationException:
        return None


def trainer(cfg: DictConfig) -> L.Trainer:
    """Build the trainer with the callbacks and loggers of `cfg`; a partial logger gets the configuration."""
    callbacks = [RankAgreement(plain(cfg)), EndWorkers(), *(build(node) for node in cfg.callbacks.values() if node)]
    if cfg.trainer.get("enable_progress_bar") is False:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    loggers = [build(node) for node in cfg.logger.values() if node]
    synchronized = [SyncBatchNorms()] if cfg.trainer.sync_batchnorm and _on_gpu(cfg) else []
    made: L.Trainer = instantiate(
        cfg.trainer,
        plugins=[StagedCheckpointIO(), *synchronized, *(build(node) for node in cfg.trainer.get("plugins") or ())],
        callbacks=callbacks,
        logger=[_complete(logger, cfg) for logger in loggers],
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        sync_batchnorm=False,  # `synchronized` does it
        **trainer_flags.profiler_override(cfg),
        _convert_="all",
    )
    _check_world_size(made)
    if made.world_size > 1 and made.is_global_zero and cfg.trainer.sync_batchnorm and not _on_gpu(cfg):
        print("batch norms look at each rank's own images: torch's SyncBatchNorm runs on GPUs only")
    return made


def _check_world_size(made: L.Trainer) -> None:
    """Raise UserError if torchrun or srun has started another number of ranks than configured."""
    started, devices, nodes = Started.this(), made.num_devices, made.num_nodes
    if started is not None and started.size != devices * nodes:
        raise UserError(
            f"trainer.devices={devices} on trainer.num_nodes={nodes} makes {devices * nodes} ranks, but {started.by} "
            f"has started {started.size}: set both to what it was asked for"
        )


def _on_gpu(cfg: DictConfig) -> bool:
    return torch.cuda.is_available() and cfg.trainer.accelerator != "cpu"


def _complete(logger: Logger | partial[Logger], cfg: DictConfig) -> Logger:
    return logger(storable_config(cfg)) if isinstance(logger, partial) else logger


def compose(overrides: Sequence[str]) -> DictConfig:
    """Compose the config of `fastfcn_pl.train` with `overrides`, inside or outside of a job."""
    return options.compose("train", overrides)


def change(parts: dict[str, Any], name: str, node: Config | None) -> None:
    """Replace part `name` of plain `parts` by `node` if that is a whole option, else merge its non-null keys."""
    new: Any = {} if node is None else OmegaConf.to_container(node, resolve=False)
    if "_target_" in new:
        parts[name] = _without_foreign_nulls(name, new)
    else:
        parts[name] = _merged(parts.get(name), {key: value for key, value in new.items() if value is not None})


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def _without_foreign_nulls(name: str, node: dict[str, Any]) -> dict[str, Any]:
    """Return `node` without the null keys that its `_target_` does not accept."""
    allowed, _ = parameters(import_target(name, node["_target_"]))
    return {k: v for k, v in node.items() if v is not None or k in HYDRA_KEYS or allowed is None or k in allowed}


def only_to_predict(parts: dict[str, Any]) -> None:
    """Change plain `parts` of a checkpoint's configuration, so that they hold nothing that only training needs.

    No weights are fetched, nothing is augmented, and no cache is written.
    """
    without_pretrained(parts)
    _unset(parts.get("data"), "augmentation", None)
    if isinstance(data := parts.get("data"), dict):
        _unset(data.get("loader"), "cache", None)


def without_pretrained(config: DictConfig | dict[str, Any]) -> None:
    """Change the network of `config` so that no weights are fetched for it: they come from a checkpoint."""
    network = config.get("model")
    is_config = OmegaConf.is_config(network)
    if is_config:
        network = OmegaConf.to_container(network, resolve=False)
    _unset(network, "pretrained", False)
    if is_config:
        config["model"] = network


def _unset(node: Any, key: str, value: Any) -> None:
    """Set each `key` in nested plain containers to `value`."""
    if isinstance(node, dict) and key in node:
        node[key] = value
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _unset(item, key, value)


def configuration(parts: dict[str, Any]) -> Config:
    """Return plain containers as a configuration."""
    return OmegaConf.create(parts)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain containers."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
