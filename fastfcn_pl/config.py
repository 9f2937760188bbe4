"""The typed root of each primary config: a misspelt key at the top is refused before anything heavy is imported.

What stands below `model`, `data`, ... is checked against the signatures that it is for: `build.check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

_PACKAGE = Path(__file__).parent
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Where the options are: inside an installed package, beside it in a checkout."""


@dataclass
class TrainConfig:
    """Keys of `python -m fastfcn_pl.train`."""

    data: Any = MISSING
    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = MISSING
    logger: Any = MISSING
    protocol: Any = MISSING
    seed: int = MISSING
    channels_last: bool = MISSING
    run_dir: str = MISSING
    question: str | None = None  # what a study asks; its report shows it
    debug: bool | None = None  # `+debug=true` shows the traceback of an error


@dataclass
class EvaluateConfig:
    """Keys of `python -m fastfcn_pl.evaluate`."""

    checkpoint: str = MISSING
    split: str = MISSING
    data: Any = MISSING
    protocol: Any = None
    trainer: Any = MISSING
    callbacks: Any = MISSING
    run_dir: str = MISSING
    debug: bool | None = None


@dataclass
class ConvertConfig:
    """Keys of `python -m fastfcn_pl.convert`."""

    source: str = MISSING
    output: str = MISSING
    data: Any = None
    debug: bool | None = None


def register() -> None:
    """Make the schemas known to Hydra, under the names that the primary configs refer to."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="convert_schema", node=ConvertConfig)
