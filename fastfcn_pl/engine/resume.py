"""Going on with a run from one of its checkpoints, and starting one from weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from fastfcn_pl.config import build
from fastfcn_pl.config.stored_config import restore_withheld
from fastfcn_pl.config.trust import Trust
from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.engine.checkpoint import Checkpoint
from fastfcn_pl.engine.checkpoint_file import unusable
from fastfcn_pl.training.checkpoint_io import moved
from fastfcn_pl.training.module import SegmentationModule

_OF_THIS_JOB = ("checkpoint", "init_from", "run_dir", "debug", "trust")
_TEXTS = ("question", "published")


@dataclass(frozen=True)
class Begun:
    """A run that was stopped, as one of its checkpoints knows it."""

    checkpoint: Checkpoint
    path: Path

    @classmethod
    def read(cls, cfg: DictConfig) -> Begun:
        """Read `cfg.checkpoint`; `last` is the one in the run's folder. Raises UserError where no run can go on."""
        path = Path(cfg.run_dir, "checkpoints", "last.ckpt") if cfg.checkpoint == "last" else Path(cfg.checkpoint)
        checkpoint = Checkpoint.read(path, Trust.of(cfg.trust, cfg))
        content = checkpoint.training_state
        if not content.get("loops") or not content.get("optimizer_states"):
            raise UserError(f"checkpoint={path} holds weights but no state of training: start from it with init_from=")
        if path.resolve().parents[1] != Path(cfg.run_dir).resolve():
            raise UserError(f"checkpoint={path}: a run goes on in its own folder: leave out -m, run_dir, hydra.run.dir")
        begun = cls(checkpoint, path)
        try:
            _ = begun.position, begun.steps_logged
        except build.BAD_DATA_ERRORS as error:
            raise unusable(path, error) from error
        return begun

    def config(self, cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration that the run had, with what the command line `overrides`, as composed in `cfg`.

        Raises UserError if the checkpoint names what is not trusted.
        """
        try:
            run = self._config(cfg, overrides)
        except build.BAD_DATA_ERRORS as error:
            raise unusable(self.path, error) from error
        built = {key: value for key, value in run.items() if key not in _TEXTS}
        self.checkpoint.trust.check(built, self.path, cfg.run_dir)
        return build.configuration(run)

    def _config(self, cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
        mine: Any = OmegaConf.to_container(cfg, resolve=False)
        kept = moved(self.checkpoint.config, str(self.checkpoint.config["run_dir"]), cfg.run_dir)
        run = restore_withheld(kept, cfg)
        run["trust"] = mine["trust"]  # of this job, never of the file
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            path = override.package or override.key_or_group.replace("/", ".")
            if path in _OF_THIS_JOB:
                continue
            *parents, last = path.split(".")
            node, composed = run, mine
            for key in parents:
                node[key] = node[key] if isinstance(node.get(key), dict) else {}
                node, composed = node[key], composed.get(key) or {}
            if override.is_delete():
                node.pop(last, None)
            else:
                node[last] = composed.get(last)
        return run

    @property
    def steps_logged(self) -> int:
        """How many steps had been logged."""
        return self.checkpoint.training_state["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]

    @property
    def position(self) -> tuple[int, int]:
        """The epoch that the run was in, and how many of its batches were done."""
        loop = self.checkpoint.training_state["loops"]["fit_loop"]
        epoch = loop["epoch_progress"]["current"]
        inside = epoch["ready"] > epoch["processed"]
        return epoch["processed"], loop["epoch_loop.batch_progress"]["current"]["ready"] if inside else 0

    def go_on(self, trainer: L.Trainer, module: SegmentationModule, datamodule: SegmentationDataModule) -> None:
        """Prepare for `trainer.fit` with this checkpoint; raises UserError where classes or weights do not fit."""
        self.checkpoint.check_classes(datamodule.spec)
        self.checkpoint.load_into(module)
        datamodule.start = self.position
        # Lightning takes a run that is bounded by steps for one that always stopped inside of an epoch.
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]


def start_from(path: str, module: SegmentationModule) -> str:
    """Load what fits `module` of a checkpoint, ours or a published one; return what was loaded and what was not.

    Raises UserError where none of the backbone's weights fit.
    """
    given: dict[str, Tensor] = Checkpoint.read(path).state_dict
    own = module.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    if not any(name.startswith("model.backbone.") for name in fitting):
        raise UserError(f"init_from={path} holds no weight of this backbone: set model.backbone as it was trained")
    module.load_state_dict(fitting, strict=False)
    fresh = [
        f"{name} ({_shape(given[name])} there, {_shape(tensor)} here)" if name in given else name
        for name, tensor in own.items()
        if name not in fitting
    ]
    unused = [name for name in given if name not in own]
    lines = [f"{path}: {len(fitting)} of {len(own)} tensors loaded"]
    for names, what in ((fresh, "start fresh"), (unused, "of the file have no place here")):
        if names:
            lines += [f"{len(names)} {what}:", *(f"  {name}" for name in names)]
    return "\n".join(lines)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
