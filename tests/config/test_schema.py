"""Validation of the configuration: every option matches its signature, and every typo is an error."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import pytest
from hydra._internal.utils import create_config_search_path
from hydra.errors import MissingConfigException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config import composition, schema, validation
from fastfcn_pl.config.precedence import HYDRA_KEYS
from fastfcn_pl.core.types import UserError
from tests.support.grids import sample

GROUPS = (
    "data",
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
    "protocol",
    "diagnostics",
)
OPTIONS = sorted(
    path.relative_to(schema.CONF_DIR).with_suffix("").as_posix()
    for group in GROUPS
    for path in (schema.CONF_DIR / group).rglob("*.yaml")
    if not path.name.startswith("_")
)
BASES = [path for path in schema.CONF_DIR.rglob("_*") if path.suffix == ".yaml" or path.is_dir()]


def _nodes(cfg: DictConfig) -> list[tuple[str, DictConfig]]:
    return list(validation._targets(cfg, ""))


def _together() -> list[list[str]]:
    """Return overrides that choose every option once, one of each group at a time, since composing takes long.

    A whole model chooses its own parts, a term stands wherever a loss, or the command line, puts it, and an upsampler
    in a neck that has one.
    """
    groups: dict[str, list[str]] = {}
    for option in OPTIONS:
        group, _, name = option.rpartition("/")
        key = "+loss/term@loss.terms.extra" if group == "loss/term" else group
        groups.setdefault(key, []).append(f"{key}={name}")
    models = [[model] for model in groups.pop("model")]
    # Vision transformers have no dilation, which the necks of the groups below may set.
    models += [[backbone] for backbone in groups["model/backbone"] if "vit" in backbone]
    groups["model/backbone"] = [backbone for backbone in groups["model/backbone"] if "vit" not in backbone]
    models += [["model/neck=fpn", upsampler] for upsampler in groups.pop("model/neck/upsampler")]
    return models + [[c for c in choices if c is not None] for choices in itertools.zip_longest(*groups.values())]


@pytest.mark.slow
@pytest.mark.parametrize("options", _together(), ids=" ".join)
def test_options_fit_their_signatures(options: list[str], make_config: Callable[..., DictConfig]) -> None:
    _fits(make_config(*options))


@pytest.mark.slow
def test_diagnostics_are_listed(make_config: Callable[..., DictConfig]) -> None:
    names = {option.removeprefix("diagnostics/") for option in OPTIONS if option.startswith("diagnostics/")}
    assert set(make_config("diagnostics=all").diagnostics) == names - {"all", "none"}
    for name in ("train", "evaluate"):
        both = make_config("diagnostics=[calibration,components]", "diagnostics.calibration.bins=9", name=name)
        assert list(both.diagnostics) == ["calibration", "components"]
        assert both.diagnostics.calibration.bins == 9
        assert composition.ConfigLoader.notes == ()
        assert not make_config(name=name).diagnostics
        assert not make_config("diagnostics=[]", name=name).diagnostics


def test_a_base_is_no_option(make_config: Callable[..., DictConfig]) -> None:
    loader = composition.ConfigLoader(create_config_search_path(str(schema.CONF_DIR)))
    assert BASES
    for base in BASES:
        group = base.parent.relative_to(schema.CONF_DIR).as_posix().removeprefix(".")
        listed = loader.get_group_options(group, None)
        assert listed
        assert base.stem not in listed
    with pytest.raises(MissingConfigException) as caught:
        make_config("model/backbone=resnet500")
    assert "resnet50s" in str(caught.value)
    assert "_timm" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "data", sample([o for o in OPTIONS if o.startswith("data/") and o.count("/") == 1], "data/camvid", "data/folder")
)
@pytest.mark.parametrize(
    "augmentation", [o for o in OPTIONS if o.startswith("data/augmentation/") and o.count("/") == 2]
)
def test_any_data_set_takes_any_augmentation(
    data: str, augmentation: str, make_config: Callable[..., DictConfig]
) -> None:
    options = [f"data={data.split('/')[-1]}", f"data/augmentation={augmentation.split('/')[-1]}"]
    _fits(make_config(*options))


def _fits(cfg: DictConfig) -> None:
    for _, node in _nodes(cfg):
        node.update({key: "given" for key in node if OmegaConf.is_missing(node, key)})  # what only the user knows
    validation.check(cfg)
    for path, node in _nodes(cfg):
        target = get_object(node["_target_"])
        if target.__module__.startswith("fastfcn_pl."):
            keys = {str(k) for k in node} - set(HYDRA_KEYS)
            assert keys == validation.parameters(target)[0], path


def _paths(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Return the dotted path of every key that stands directly in a node with a `_target_`."""
    return [f"{path}.{key}" for path, node in _nodes(cfg) for key in node if key not in HYDRA_KEYS]


@pytest.mark.slow
def test_a_typo_at_any_depth_is_an_error(make_config: Callable[..., DictConfig]) -> None:
    cfg = make_config("data=camvid")
    paths = _paths(cfg)
    assert max(path.count(".") for path in paths) >= 3
    for path in paths:
        broken = cfg.copy()
        OmegaConf.set_struct(broken, False)
        parent, _, key = path.rpartition(".")
        node = OmegaConf.select(broken, parent)
        node[f"{key}x"] = 1  # what a study's body would merge without a word
        with pytest.raises(UserError, match=f"{parent}.{key}x"):
            validation.check(broken)


def test_a_missing_key_is_an_error(make_config: Callable[..., DictConfig]) -> None:
    cfg = make_config()
    OmegaConf.set_struct(cfg, False)
    del cfg.model.neck["width"]
    with pytest.raises(UserError, match=r"model\.neck\.width is not set"):
        validation.check(cfg)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("trainer.max_epochs", "a whole number"),
        ("trainer.gradient_clip_val", "a number or null"),
        ("optimizer.lr", "a number"),
        ("data.batch_size", "a whole number"),
    ],
)
def test_a_word_in_place_of_a_number_is_an_error(key: str, kind: str, make_config: Callable[..., DictConfig]) -> None:
    cfg = make_config("trainer.devices=auto")  # where a word is right
    validation.check(cfg)
    OmegaConf.update(cfg, key, "ten")
    with pytest.raises(UserError, match=f"^{re.escape(key)}=ten: use {kind}$"):
        validation.check(cfg)


def test_a_new_callback_needs_a_target(make_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match=r"callbacks\.sampels has no _target_; did you mean samples"):
        validation.check(make_config("+callbacks.sampels.count=3"))


def test_a_target_that_cannot_be_imported_is_named(make_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(
        UserError, match=r"model\.neck\._target_=fastfcn_pl\.models\.necks\.jpu\.JUP cannot be imported"
    ):
        validation.check(make_config("model.neck._target_=fastfcn_pl.models.necks.jpu.JUP"))


def test_dilated_sets_the_backbones_stride_and_the_command_line_still_wins(
    make_config: Callable[..., DictConfig],
) -> None:
    assert make_config("model/neck=dilated").model.backbone.output_stride == 8
    assert make_config("model/neck=dilated", "model.backbone.output_stride=16").model.backbone.output_stride == 16


@pytest.mark.slow
def test_the_main_job_composes(make_config: Callable[..., DictConfig]) -> None:
    cfg = make_config("model/neck=jpu", "data=ade20k", "trainer.devices=4")
    validation.check(cfg)
    assert (cfg.data.batch_size, cfg.trainer.devices, cfg.model.backbone.name) == (4, 4, "resnet50s")
