"""Schemas of the primary configs, which reject a misspelt top-level key before anything heavy is imported.

Keys below `model`, `data`, ... are checked against signatures by `validation.check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, OmegaConf

from fastfcn_pl.config import composition, resolvers

_PACKAGE = Path(__file__).parent.parent
_HOME = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent
CONF_DIR, STUDIES_DIR = _HOME / "conf", _HOME / "experiments"
"""Folders of options and studies: inside an installed package, beside it in a checkout."""


@dataclass
class TrainConfig:
    """Keys of `python -m fastfcn_pl.train`."""

    data: Any = MISSING
    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    warmup: Any = MISSING
    freeze: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = MISSING
    logger: Any = MISSING
    protocol: Any = MISSING
    diagnostics: Any = None
    seed: int = MISSING
    channels_last: bool = MISSING
    compile: bool = MISSING
    accelerate: bool = MISSING
    run_dir: str = MISSING
    checkpoint: str | None = MISSING
    resume: str | None = MISSING
    match: Any = None  # the equal cost that a width is solved for: `what`, `of`, `within`
    question: str | None = None  # the question that a study answers, for its report
    published: Any = None  # published results for its report: rows of `run`, `mIoU`, `fps`, `source`
    baseline: str | None = None  # the row with which its report compares the others: an override; null: the best
    margin: float = MISSING
    trust: Any = MISSING
    debug: bool | None = None  # `+debug=true` shows the traceback of an error


@dataclass
class EvaluateConfig:
    """Keys of `python -m fastfcn_pl.evaluate`."""

    checkpoint: str = MISSING
    split: str = MISSING
    data: Any = MISSING
    protocol: Any = None
    diagnostics: Any = None
    trainer: Any = MISSING
    callbacks: Any = MISSING
    accelerate: bool = MISSING
    run_dir: str = MISSING
    trust: Any = MISSING
    debug: bool | None = None


@dataclass
class BenchmarkConfig:
    """Keys of `python -m fastfcn_pl.benchmark`."""

    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    checkpoint: str | None = MISSING
    num_classes: int = MISSING
    device: str = MISSING
    threads: int | None = MISSING
    precision: str = MISSING
    channels_last: bool = MISSING
    accelerate: bool = MISSING
    batch: int = MISSING
    size: list[int] = MISSING
    warm_up: int = MISSING
    repeats: int = MISSING
    memory: bool = MISSING
    training: Any = MISSING
    match: Any = None  # the equal cost that a width is solved for: `what`, `of`, `within`
    run_dir: str = MISSING
    question: str | None = None  # the question that a study answers
    published: Any = None  # published results to compare with: rows of `run`, `fps`, `over` and `source`
    trust: Any = MISSING
    debug: bool | None = None


@dataclass
class ConvertConfig:
    """Keys of `python -m fastfcn_pl.convert`."""

    source: str = MISSING
    output: str = MISSING
    data: Any = None
    trust: Any = MISSING
    debug: bool | None = None


@dataclass
class PredictConfig:
    """Keys of `python -m fastfcn_pl.predict`."""

    checkpoint: str = MISSING
    input: str = MISSING
    modalities: list[str] = MISSING
    output: str = MISSING
    save: Any = MISSING
    frames: int | None = MISSING
    overwrite: bool = MISSING
    device: str = MISSING
    precision: str = MISSING
    accelerate: bool = MISSING
    trust: Any = MISSING
    debug: bool | None = None


@dataclass
class ExportConfig:
    """Keys of `python -m fastfcn_pl.export`."""

    checkpoint: str = MISSING
    format: str = MISSING
    gives: str = MISSING
    output: str | None = MISSING
    overwrite: bool = MISSING
    images: str | None = MISSING
    count: int = MISSING
    least_equal: float = MISSING
    largest_difference: float = MISSING
    max_size: int = MISSING
    int8: bool = MISSING
    quantization: Any = MISSING
    accelerate: bool = MISSING
    data: Any = MISSING
    trust: Any = MISSING
    debug: bool | None = None


@dataclass
class DemoConfig:
    """Keys of `python -m fastfcn_pl.demo`."""

    checkpoint: str = MISSING
    host: str = MISSING
    port: int = MISSING
    max_upload_mib: int = MISSING
    device: str = MISSING
    accelerate: bool = MISSING
    trust: Any = MISSING
    debug: bool | None = None


@dataclass
class DashboardConfig:
    """Keys of `python -m fastfcn_pl.dashboard`."""

    project: str = MISSING
    name: str = MISSING
    study: str | None = MISSING
    text: str | None = MISSING
    samples: int = MISSING
    save: bool = MISSING
    output: str | None = MISSING
    debug: bool | None = None


@dataclass
class PrepareConfig:
    """Keys of `python -m fastfcn_pl.prepare`."""

    data: Any = MISSING
    prepare: Any = None
    archives: str | None = MISSING
    mirror: str | None = MISSING
    num_workers: int | None = MISSING
    download: Any = MISSING
    debug: bool | None = None


@dataclass
class DoctorConfig:
    """Keys of `python -m fastfcn_pl.doctor`."""

    data: Any = MISSING
    limit: int | None = MISSING
    num_workers: int | None = MISSING
    samples: int = MISSING
    seed: int = MISSING
    output: str = MISSING
    debug: bool | None = None


class Studies(SearchPathPlugin):
    """Plugin that appends the studies to Hydra's search path, so that `-cn` finds them without `-cd`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("fastfcn_pl", str(STUDIES_DIR))


def register(print_only: bool = False) -> None:
    """Register studies, schemas and resolvers with Hydra.

    With `print_only`, configurations are printed instead of run.
    """
    Plugins.instance().register(Studies)
    composition.register(print_only)
    define()


def define() -> None:
    """Define the schemas and resolvers that our configurations name."""
    for resolver in resolvers.ALL:
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="benchmark_schema", node=BenchmarkConfig)
    store.store(name="convert_schema", node=ConvertConfig)
    store.store(name="predict_schema", node=PredictConfig)
    store.store(name="export_schema", node=ExportConfig)
    store.store(name="demo_schema", node=DemoConfig)
    store.store(name="dashboard_schema", node=DashboardConfig)
    store.store(name="prepare_schema", node=PrepareConfig)
    store.store(name="doctor_schema", node=DoctorConfig)
