"""First messages of a command: notes on its configuration, missing keys, and a line before slow imports."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config.composition import ConfigLoader
from fastfcn_pl.engine import usage
from fastfcn_pl.models.weights import hub
from fastfcn_pl.training.distributed import is_rank_0

_SHOWING = ("--cfg", "-c", "--info", "-i")


def shows(arguments: Sequence[str]) -> bool:
    """Tell whether a command line asks Hydra to show a configuration instead of running it."""
    return any(argument.partition("=")[0] in _SHOWING for argument in arguments)


def before_imports(module: str, cfg: DictConfig) -> None:
    """Raise UserError if keys have no value; print a line, and start to check whether the hub can be reached."""
    command = module.rpartition(".")[2]
    optional = {"data.classes"} if command == "prepare" else set()  # annotation files name them
    if missing := OmegaConf.missing_keys(cfg) - optional:
        order = [str(key) for key in cfg]
        raise usage.MissingValueError(
            usage.wanted(command, sorted(missing, key=lambda key: (order.index(key.split(".")[0]), key)))
        )
    if is_rank_0():
        say_notes()
    step(f"{command}: loading PyTorch")
    has_weights = cfg.get("checkpoint") is not None or cfg.get("resume") is not None
    if is_rank_0() and not has_weights and OmegaConf.select(cfg, "model.backbone.pretrained") is True:
        hub.begin()


def step(line: str) -> None:
    """Print on rank 0 which silent step begins; to stdout, since stderr is for errors and notes."""
    if is_rank_0():
        print(line, flush=True)


def say_notes() -> None:
    """Print the notes of the latest composition once."""
    for note in ConfigLoader.notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    ConfigLoader.notes = ()
