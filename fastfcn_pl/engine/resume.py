"""Starts of a training that is not from scratch: a run resumed from its checkpoint, and a new run from weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from fastfcn_pl.config import build
from fastfcn_pl.config.build import BAD_DATA_ERRORS
from fastfcn_pl.config.stored_config import restore_withheld
from fastfcn_pl.config.trust import Trust
from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.engine.checkpoint import Checkpoint
from fastfcn_pl.engine.checkpoint_file import unusable
from fastfcn_pl.training.checkpoint_io import moved
from fastfcn_pl.training.distributed import loss_of_rank
from fastfcn_pl.training.module import SegmentationModule

_OF_THIS_START = ("checkpoint", "resume", "run_dir", "debug", "trust")
"""Keys that the command line does not change in the configuration of a resumed run."""
_TEXTS = ("question", "published")
_SHAPED_AS_PARAMETERS = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
"""Tensors of torch's optimizers, which load them without a look at their shapes."""


@dataclass(frozen=True)
class StoppedRun:
    """A run that was stopped, as one of its checkpoints describes it."""

    checkpoint: Checkpoint

    @classmethod
    def read(cls, cfg: DictConfig) -> StoppedRun:
        """Read the checkpoint of `cfg.resume`; raises UserError if no run can be resumed from it.

        `last` stands for the one in the run's folder.
        """
        path = Path(cfg.run_dir, "checkpoints", "last.ckpt") if cfg.resume == "last" else Path(cfg.resume)
        run = cls(Checkpoint.read(path, Trust.of(cfg.trust, cfg)))
        state = run.checkpoint.training_state
        if not state.get("loops") or not state.get("optimizer_states"):
            raise UserError(
                f"resume={path} holds weights but no state of training: start a new run with checkpoint={path}"
            )
        if path.resolve().parents[1] != Path(cfg.run_dir).resolve():
            raise UserError(
                f"resume={path}: a run is resumed in its own folder: leave out -m, run_dir and hydra.run.dir"
            )
        try:
            _ = run.position, run.steps_logged, run.steps_done
        except BAD_DATA_ERRORS as error:
            raise unusable(path, error) from error
        return run

    @property
    def path(self) -> Path:
        return Path(self.checkpoint.path)

    def config(self, cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration that the run had, changed by the `overrides` of the command line.

        `cfg` has their values. Raises UserError if the checkpoint names a target that is not trusted.
        """
        try:
            run = self._config(cfg, overrides)
        except BAD_DATA_ERRORS as error:
            raise unusable(self.path, error) from error
        built = {key: value for key, value in run.items() if key not in _TEXTS}
        self.checkpoint.trust.check(built, self.path, cfg.run_dir)
        return build.configuration(run)

    def _config(self, cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
        composed: Any = OmegaConf.to_container(cfg, resolve=False)
        kept = moved(self.checkpoint.config, str(self.checkpoint.config["run_dir"]), cfg.run_dir)
        run = restore_withheld(kept, cfg)
        run["trust"] = composed["trust"]  # of this job, never of the file
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            path = override.package or override.key_or_group.replace("/", ".")
            if path in _OF_THIS_START:
                continue
            *parents, last = path.split(".")
            node, source = run, composed
            for key in parents:
                if isinstance(source.get(key), list):  # the override is of one of its items
                    last = key
                    break
                node[key] = node[key] if isinstance(node.get(key), dict) else {}
                node, source = node[key], source.get(key) or {}
            if override.is_delete():
                node.pop(last, None)
            else:
                node[last] = source.get(last)
        _keep_logged_runs(run, kept)
        return run

    @property
    def steps_logged(self) -> int:
        """The number of steps that had been logged."""
        return self._fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"]

    @property
    def steps_done(self) -> int:
        """The number of optimizer steps that had been taken."""
        progress = self._fit_loop["epoch_loop.automatic_optimization.optim_progress"]
        return progress["optimizer"]["step"]["total"]["completed"]

    @property
    def position(self) -> tuple[int, int]:
        """The epoch that the run was in, and how many of its batches were done."""
        epoch = self._fit_loop["epoch_progress"]["current"]
        inside = epoch["ready"] > epoch["processed"]
        return epoch["processed"], self._fit_loop["epoch_loop.batch_progress"]["current"]["ready"] if inside else 0

    @property
    def _fit_loop(self) -> dict[str, Any]:
        return self.checkpoint.training_state["loops"]["fit_loop"]

    def prepare(self, trainer: L.Trainer, module: SegmentationModule, datamodule: SegmentationDataModule) -> None:
        """Prepare `trainer.fit` with this checkpoint; raises UserError if its classes or weights do not fit."""
        self.checkpoint.check_spec(datamodule.spec)
        self.checkpoint.load_into(module)
        datamodule.start = self.position
        # Lightning assumes that a run which is bounded by steps always stopped inside of an epoch.
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        connector = trainer._checkpoint_connector
        connector._restore_modules_and_callbacks = self._checked(  # type: ignore[method-assign]
            connector._restore_modules_and_callbacks
        )
        connector.restore_training_state = self._checked(  # type: ignore[method-assign]
            connector.restore_training_state, lambda: _check_optimizers(trainer)
        )

    def _checked(self, restore: Callable[..., None], check: Callable[[], None] = lambda: None) -> Callable[..., None]:
        """Return Lightning's function `restore` so that a damaged state raises UserError; then `check` runs."""

        def restore_and_check(*args: Any, **options: Any) -> None:
            try:
                restore(*args, **options)
                check()
            except BAD_DATA_ERRORS as error:
                if loss_of_rank(error):
                    raise
                raise unusable(self.path, error) from error

        return restore_and_check


def _keep_logged_runs(run: dict[str, Any], kept: dict[str, Any]) -> None:
    """Keep the ids of the runs in W&B and the like if the command line repeats `logger=wandb`, which has none."""
    for name, logger in run.get("logger", {}).items():
        stored = kept.get("logger", {}).get(name)
        if logger and stored and "id" in logger and logger["id"] is None:
            logger["id"] = stored.get("id")


def _check_optimizers(trainer: L.Trainer) -> None:
    """Raise ValueError if an optimizer's restored state has another shape than its parameter."""
    for optimizer in trainer.optimizers:
        for parameter, state in optimizer.state.items():
            for name in _SHAPED_AS_PARAMETERS:
                tensor = state.get(name)
                if tensor is not None and tensor.shape != parameter.shape:
                    raise ValueError(f"{name} of {_shape(tensor)} for a parameter of {_shape(parameter)}")


def start_from(path: str, module: SegmentationModule) -> str:
    """Load the weights of a checkpoint, ours or a published one, that fit `module`; return a report of them.

    Raises UserError if none of the backbone's weights fit.
    """
    checkpoint = Checkpoint.read(path)
    given, own = checkpoint.state_dict, module.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    if not any(name.startswith("model.backbone.") for name in fitting):
        raise UserError(f"checkpoint={path} holds no weight of this backbone: set model.backbone as it was trained")
    module.load_state_dict(fitting, strict=False)
    fresh = [
        f"{name} ({_shape(given[name])} there, {_shape(tensor)} here)" if name in given else name
        for name, tensor in own.items()
        if name not in fitting
    ]
    unused = [name for name in given if name not in own]
    hint = f" (resume={path} would continue its own run)" if checkpoint.training_state.get("optimizer_states") else ""
    lines = [f"a new run starts from {path}: {len(fitting)} of {len(own)} tensors loaded{hint}"]
    if (there := checkpoint.spec.images) != (here := module.spec.images):
        lines.append(f"its weights are for {there}, and here are {here}: the first layer starts fresh unless it fits")
    for names, what in ((fresh, "start fresh"), (unused, "of the file have no place here")):
        if names:
            lines += [f"{len(names)} {what}:", *(f"  {name}" for name in names)]
    return "\n".join(lines)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
