"""The studies: each of their runs is one that `train` or `benchmark` accepts, and each starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl import build, config

STUDIES = sorted(path.stem for path in config.STUDIES_DIR.glob("*.yaml"))


def _hydra(study: str) -> DictConfig:
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        return compose(study, ["run_dir=."], return_hydra_config=True).hydra


def cells(study: str) -> list[list[str]]:
    """Return the overrides of each of a study's runs, as Hydra's sweeper makes them."""
    params = _hydra(study).sweeper.get("params") or {}
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return [list(cell) for cell in batch]


SWEEPS = [study for study in STUDIES if len(cells(study)) > 1]
BENCHMARKS = [study for study in SWEEPS if study.startswith("paper_speed")]


@pytest.mark.parametrize("study", STUDIES)
def test_each_run_of_a_study_composes_and_fits(study: str, make_config: Callable[..., DictConfig]) -> None:
    for overrides in cells(study):
        build.check(make_config(*overrides, name=study))


@pytest.mark.parametrize("study", SWEEPS)
def test_a_sweep_goes_on_where_it_was_stopped_and_asks_something(study: str) -> None:
    """Its folder is the same at each start."""
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        cfg = compose(study, ["run_dir=."], return_hydra_config=True)
    assert cfg.hydra.mode.name == "MULTIRUN"
    assert OmegaConf.to_container(cfg.hydra.sweep, resolve=False)["dir"] == f"runs/{study}"  # type: ignore[index]
    assert cfg.question.endswith(("?", "."))
