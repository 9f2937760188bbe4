"""The studies: each of their runs is one that `train` or `benchmark` accepts, and each starts."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchinfo
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config import build, schema, validation
from fastfcn_pl.models.cost import cost
from fastfcn_pl.tools.train import train
from tests.fakes.ade20k import write_ade20k
from tests.fakes.camvid import write_camvid
from tests.fakes.pascal_context import write_pascal_context
from tests.support.grids import sample

SEARCH = "lr_width_search"
STUDIES = sorted(path.stem for path in schema.STUDIES_DIR.glob("*.yaml"))


def _params(study: str) -> dict[str, Any]:
    """Return the sweep of a study, from its file and those that it begins with: composing it would take long."""
    content = yaml.safe_load((schema.STUDIES_DIR / f"{study}.yaml").read_text())
    params: dict[str, Any] = {}
    for default in content["defaults"]:
        if default in STUDIES:
            params |= _params(default)
    return params | content.get("hydra", {}).get("sweeper", {}).get("params", {})


def cells(study: str) -> list[list[str]]:
    """Return the overrides of each of a study's runs, as Hydra's sweeper makes them; of a search's, only one."""
    params = {} if study == SEARCH else _params(study)
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return [list(cell) for cell in batch]


SWEEPS = [study for study in STUDIES if len(cells(study)) > 1]
BENCHMARKS = [s for s in SWEEPS if f"fastfcn_pl.benchmark -cn {s}" in (schema.STUDIES_DIR / f"{s}.yaml").read_text()]
TRAINED = [study for study in STUDIES if study not in BENCHMARKS]


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("some", sample(["first and last", "each"], "first and last"))
def test_runs_of_a_study_compose_and_fit(some: str, study: str, make_config: Callable[..., DictConfig]) -> None:
    first, *others = (tuple(o for o in cell if not o.startswith("seed=")) for cell in cells(study))
    for overrides in dict.fromkeys([first, *(others if some == "each" else ()), tuple(cells(study)[-1])]):
        validation.check(make_config(*overrides, name=study))


@pytest.mark.slow
@pytest.mark.parametrize("study", SWEEPS)
def test_a_sweep_goes_on_where_it_was_stopped_and_asks_something(study: str) -> None:
    """Its folder is the same at each start."""
    with initialize_config_dir(str(schema.CONF_DIR), version_base="1.3"):
        cfg = compose(study, ["run_dir=."], return_hydra_config=True)
    assert cfg.hydra.mode.name == "MULTIRUN"
    assert cfg.hydra.sweeper.params == _params(study)
    folder = OmegaConf.to_container(cfg.hydra.sweep, resolve=False)["dir"]  # type: ignore[index, call-overload]
    assert folder == "runs/${hydra.job.config_name}"
    assert "?" in cfg.question


TINY = ["model.backbone.name=test_resnet", "model.backbone.pretrained=false", "model.head.channels=8", "logger=none"]
TINY += ["model.aux_head.channels=8", "data.batch_size=2", "data.num_workers=0", "data.augmentation.crop_size=64"]
TINY += ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_steps=2", "trainer.check_val_every_n_epoch=1"]
TINY += ["callbacks.cost.repeats=0"]
PAPER = ["model.neck.width=8", "model.head.rates=[1]", "protocol.scales=[1.0]", "protocol.flip=true"]
PAPER += ["protocol.base_size=96", "protocol.crop_size=64"]


@pytest.mark.slow
@pytest.mark.parametrize("study", sample([s for s in TRAINED if s in SWEEPS], "neck_ablation", "paper_pascal_context"))
def test_the_last_run_of_a_study_trains_and_is_scored(
    study: str, tmp_path: Path, make_config: Callable[..., DictConfig]
) -> None:
    kind = study.removeprefix("paper_")
    if kind == "ade20k":
        root = write_ade20k(tmp_path / "data")
    elif kind == "pascal_context":
        root = write_pascal_context(tmp_path / "data")
    else:
        root = write_camvid(tmp_path / "data", train=4, val=2)
    small = [*TINY, *(PAPER if study.startswith("paper") else []), f"data.root={root}"]
    cfg = make_config(*cells(study)[-1], *small, name=study)
    if cfg.match is not None:
        cfg.match = None  # which a job solves before it trains
    train(cfg)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["steps"] == 2
    assert results["mIoU"] is not None


@pytest.mark.slow
def test_a_study_runs_ends_in_a_table_and_is_reported(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    root = write_camvid(tmp_path / "data", train=4, val=2)
    few = "hydra.sweeper.params={seed:0,model/neck:'bilinear,dilated16'}"
    done = command("train", "-cn", "neck_ablation", *TINY, f"data.root={root}", few, "~callbacks.progress")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "neck_ablation"
    assert [line.split(",")[1] for line in (folder / "sweep.csv").read_text().splitlines()[1:]] == [
        "model/neck=bilinear",
        "model/neck=dilated16",
    ]
    done = command("report", str(folder / "0"), str(folder / "1"), f"output={tmp_path / 'pages'}")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "pages" / "neck_ablation.md").read_text()
    assert "What does a neck bring" in page
    assert "| dilated16 |" in page


@pytest.mark.slow
@pytest.mark.parametrize("study", BENCHMARKS)
@pytest.mark.parametrize("step", sample([9, 1], 9))
def test_costs_are_those_of_an_independent_counter(
    step: int, study: str, make_config: Callable[..., DictConfig]
) -> None:
    """Every ninth network of the studies of speed, or all of them, at 512x512."""
    networks = dict.fromkeys(tuple(o for o in cell if not o.startswith("match.")) for cell in cells(study))
    for overrides in list(networks)[::step]:
        with torch.device("meta"):
            model = build.model(make_config(*overrides, "model.backbone.pretrained=false", name=study), 59).eval()
        model.aux_head = None
        ours = cost(model, (512, 512))["total"]
        theirs = torchinfo.summary(model, (1, 3, 512, 512), device="meta", verbose=0)
        linear = [it for it in theirs.summary_list if it.class_name == "Linear"]  # which it counts for one pixel
        missed = sum(it.macs * (math.prod(it.output_size[1:-1]) - 1) for it in linear)
        deformable = [it for it in theirs.summary_list if it.class_name == "DeformableConv"]  # whose product it misses
        missed += sum(it.module.weight.numel() * math.prod(it.output_size[2:]) for it in deformable)
        assert ours.parameters == theirs.total_params
        assert ours.gmacs == pytest.approx((theirs.total_mult_adds + missed) / 1e9, rel=0.01), overrides
