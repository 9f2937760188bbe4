"""The typed root of each primary config: a misspelt key at the top is refused before anything heavy is imported.

What stands below `model`, `data`, ... is checked against the signatures that it is for: `build.check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING

_PACKAGE = Path(__file__).parent
_HOME = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent
CONF_DIR, STUDIES_DIR = _HOME / "conf", _HOME / "experiments"
"""Where options and studies are: inside an installed package, beside it in a checkout."""


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


class Studies(SearchPathPlugin):
    """Lets `-cn` find a study without `-cd`, behind what is in `CONF_DIR`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("fastfcn_pl", str(STUDIES_DIR))


def register() -> None:
    """Make the studies known to Hydra, and the schemas, under the names that the primary configs refer to."""
    Plugins.instance().register(Studies)
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="convert_schema", node=ConvertConfig)
