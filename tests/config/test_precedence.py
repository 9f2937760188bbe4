"""Precedence of options on the command line over the keys of studies."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config import schema, validation
from fastfcn_pl.config.composition import ConfigLoader
from fastfcn_pl.core.types import UserError


@pytest.fixture
def composed(tmp_path: Path) -> Callable[..., DictConfig]:
    """Return a function that composes a study; `hydra` is part of the configuration."""

    def make(study: str, *overrides: str, folder: Path | None = None) -> DictConfig:
        with initialize_config_dir(str(folder or schema.CONF_DIR), version_base="1.3"):
            own = [f"hydra.searchpath=[file://{schema.CONF_DIR}]"] if folder else []
            return compose(study, ["run_dir=.", *own, *overrides], return_hydra_config=True)

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "choices", "values"),
    [
        ("quickstart", ["model/backbone=convnext_tiny"], {"model.backbone.name": "convnext_tiny"}),
        ("quickstart", ["model/backbone=resnet50"], {"model.backbone.name": "resnet50"}),
        ("quickstart", ["model/backbone=resnet50s"], {"model.backbone.name": "resnet50s"}),  # the study's own, too
        ("quickstart", ["model=fastfcn_encnet_r50"], {"model.backbone.name": "resnet50s"}),
        ("quickstart", ["model/neck=fpn"], {"model.neck.width": 32, "model.backbone.name": "test_resnet"}),
        ("quickstart", ["model/neck=jpu"], {"model.neck.width": 32}),
        ("quickstart", ["model/neck=jpu_128"], {"model.neck.width": 128}),  # the width is what it is for
        ("quickstart", ["model/neck=fpn_128"], {"model.neck.width": 128}),
        ("quickstart", ["model/neck=jpu_128", "model.neck.width=8"], {"model.neck.width": 8}),
        ("quickstart", ["model/neck=dilated"], {"model.backbone.output_stride": 8, "model.neck.width": None}),
        ("quickstart", ["model/aux_head=none"], {"model.aux_head": {}}),
        ("quickstart", ["optimizer=sgd"], {"optimizer.lr": 0.01, "optimizer.head_lr_ratio": 1}),
        ("quickstart", ["data=camvid"], {"data.size": None, "data.train_images": None}),
        ("camvid", ["loss=ohem"], {"loss.terms.cross_entropy": None, "loss.terms.aux_cross_entropy.weight": 0.4}),
        ("neck_ablation", ["data=ade20k"], {"data.augmentation.crop_size": 480}),
        ("neck_ablation", ["callbacks=ema"], {"callbacks.cost.repeats": 15, "callbacks.ema.decay": 0.999}),
        ("head_ablation", ["model/head=aspp"], {"model.head.channels": 128}),
        ("paper_pascal_context", ["model=fastfcn_encnet_r50", "protocol=encoding_ms"], {"protocol.flip": True}),
        (
            "paper_pascal_context",
            ["model=fastfcn_encnet_r50", "protocol=native"],
            {"protocol.flip": None, "protocol.scales": None},
        ),
        ("quickstart", ["model=encnet_r50_d8", "model/head=psp"], {"model.head.kernel_size": None}),
        (
            "quickstart",
            ["~loss/term@loss.terms.se"],
            {"loss.terms.se": None, "loss.terms.aux_cross_entropy.weight": 0.4},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_chosen_option_decides_which_part_it_is(
    study: str, choices: list[str], values: dict[str, Any], composed: Callable[..., DictConfig]
) -> None:
    cfg = composed(study, *choices)
    for key, value in values.items():
        found = OmegaConf.select(cfg, key)
        assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == value, key
    validation.check(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))


@pytest.mark.slow
@pytest.mark.parametrize("study", ["quickstart", "camvid", "neck_ablation", "head_ablation"])
def test_a_study_by_itself_is_composed_as_it_is_written(study: str, composed: Callable[..., DictConfig]) -> None:
    cfg = composed(study)
    body = OmegaConf.load(schema.STUDIES_DIR / f"{study}.yaml")
    for key in body.keys() - {"defaults", "hydra", "published"}:
        merged = OmegaConf.merge(cfg[key], body[key]) if OmegaConf.is_config(body[key]) else body[key]
        assert merged == cfg[key]
    assert ConfigLoader.notes == ()


OWN = {
    "plain.yaml": "defaults: [train, _self_]\n",
    "study.yaml": "defaults: [train, {override data: mine}, _self_]\n"
    "data: {root: /data/mine, batch_size: 2, name: other, classes: [a, b]}\n"
    "model: {neck: {_target_: own.Neck, depth: 3}, head: {_target_: own.Head}}\n"
    "optimizer: {algorithm: {_target_: torch.optim.Adagrad, lr_decay: 0.1}}\n"
    "trainer: {devices: 2, max_epochs: 7}\n"
    "loss: {terms: {cross_entropy: {loss: {_target_: own.Loss}}}}\n",
    "data/mine.yaml": "defaults: [folder, _self_]\nname: mine\nroot: mine\nclasses: [c, d]\nbatch_size: 8\n",
    "data/theirs.yaml": "defaults: [folder, _self_]\nname: theirs\nroot: theirs\nclasses: [e, f]\n",
    "trainer/four.yaml": "defaults: [default, _self_]\ndevices: 4\n",
    "experiment/small.yaml": "# @package _global_\nmodel: {backbone: {name: test_resnet}}\n",
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "key", "value"),
    [
        ("data=theirs", "data.name", "theirs"),
        ("data=theirs", "data.root", "theirs"),
        ("data=theirs", "data.classes", ["e", "f"]),
        ("data=camvid", "data.root", "data/CamVid"),
        ("data=camvid", "data.batch_size", 2),  # a size, which holds for any data set
        ("data=camvid", "data.classes", None),
        ("model/neck=jpu", "model.neck._target_", "fastfcn_pl.models.necks.jpu.JPU"),
        ("model/neck=jpu", "model.neck.depth", None),
        ("model/head=fcn", "model.head._target_", "fastfcn_pl.models.heads.fcn.FCNHead"),
        ("model=fastfcn_psp_r50", "model.head._target_", "fastfcn_pl.models.heads.psp.PSPHead"),
        ("model=fastfcn_psp_r50", "model.neck._target_", "fastfcn_pl.models.necks.jpu.JPU"),
        ("optimizer=sgd", "optimizer.algorithm._target_", "torch.optim.SGD"),
        ("optimizer=sgd", "optimizer.algorithm.lr_decay", None),
        ("trainer=four", "trainer.devices", 4),
        ("trainer=four", "trainer.max_epochs", 7),
        ("loss=dice", "loss.terms.cross_entropy.loss._target_", "fastfcn_pl.losses.cross_entropy.CrossEntropy"),
        (
            "loss/term@loss.terms.cross_entropy=dice",
            "loss.terms.cross_entropy.loss._target_",
            "fastfcn_pl.losses.dice.Dice",
        ),
    ],
)
def test_any_group_of_ones_own_study(
    choice: str, key: str, value: Any, own: Path, composed: Callable[..., DictConfig]
) -> None:
    found = OmegaConf.select(composed("study", choice, folder=own), key)
    assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == value
    (note,) = ConfigLoader.notes
    assert note.startswith(f"{choice} replaces study's ")


@pytest.mark.slow
def test_an_option_for_the_whole_job_is_a_study_too(own: Path, composed: Callable[..., DictConfig]) -> None:
    cfg = composed("plain", "+experiment=small", "model/backbone=resnet50", folder=own)
    assert cfg.model.backbone.name == "resnet50"


@pytest.mark.slow
def test_what_is_replaced_and_kept_is_said(composed: Callable[..., DictConfig]) -> None:
    composed("quickstart", "model/backbone=convnext_tiny", "model/neck=fpn")
    assert ConfigLoader.notes == (
        "model/backbone=convnext_tiny replaces quickstart's model.backbone.name=test_resnet and keeps quickstart's "
        "model.backbone.pretrained=false",
        "model/neck=fpn keeps quickstart's model.neck.width=32",
    )


@pytest.mark.slow
def test_each_job_of_a_sweep_has_its_choice() -> None:
    with initialize_config_dir(str(schema.CONF_DIR), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        sweep = ["run_dir=.", "model/backbone=convnext_tiny,test"]
        master = hydra.compose_config("quickstart", sweep, run_mode=RunMode.MULTIRUN)
        job = hydra.config_loader.load_sweep_config(master, ["run_dir=.", "model/backbone=convnext_tiny"])
    assert job.model.backbone.name == "convnext_tiny"
    assert job.hydra.runtime.choices["model/backbone"] == "convnext_tiny"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "group", "name"),
    [
        (["quickstart"], "model/backbone", "test_resnet"),
        (["quickstart", "model/backbone=convnext_tiny"], "model/backbone", "convnext_tiny"),
        (["train", "model/backbone=resnet50", "model.backbone.name=test_resnet"], "model/backbone", "test_resnet"),
        (["train", "model.neck._target_=fastfcn_pl.models.necks.none.NoNeck"], "model/neck", "NoNeck"),
        (["train", "optimizer.algorithm._target_=torch.optim.Adam"], "optimizer", "Adam"),
        (["train", "data=folder", "data.name=pets"], "data", "pets"),
        (["train", "loss.terms.se.loss._target_=own.Loss"], "loss/term@loss.terms.se", "Loss"),
        (["train", "model.neck.width=8"], "model/neck", "jpu"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_recorded_choices_are_what_was_composed(
    arguments: list[str], group: str, name: str, composed: Callable[..., DictConfig]
) -> None:
    assert composed(*arguments).hydra.runtime.choices[group] == name


@pytest.mark.slow
def test_several_loggers_are_selected_together(composed: Callable[..., DictConfig]) -> None:
    cfg = composed("quickstart", "logger=[wandb,mlflow]")
    assert {"csv", "wandb", "mlflow"} == cfg.logger.keys()
    assert ConfigLoader.notes == ()


@pytest.mark.parametrize("override", ["model/neck=[jpu,fpn]", "data=[camvid,ade20k]"])
def test_several_options_of_one_part_are_refused(override: str, composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match=re.escape(f"{override}: select one option; with -m, ")):
        composed("quickstart", override)
