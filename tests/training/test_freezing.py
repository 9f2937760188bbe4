"""Frozen parts do not move: neither weights nor running statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from fastfcn_pl.config import build
from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.tools.train import train
from fastfcn_pl.training.freezing import freeze
from tests.conftest import TINY

SHORT = [*TINY, "data.train_images=10", "data.val_images=2", "data.size=32", "data.batch_size=2", "data.num_workers=0"]
SHORT += ["callbacks.cost.repeats=0", "callbacks.samples.count=1", "optimizer=adamw", "trainer.max_epochs=4"]
MakeConfig = Callable[..., DictConfig]


@pytest.fixture
def model(make_config: MakeConfig) -> Segmenter:
    return build.model(make_config(*TINY), 5)


def _frozen(model: Segmenter) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def test_the_stem_is_what_timm_calls_so(model: Segmenter) -> None:
    freeze(model, "backbone.stem")
    assert {name.split(".")[2] for name in _frozen(model)} == {"conv1", "bn1"}
    assert model.frozen_norms
    assert all(name.startswith(("backbone.net.conv1", "backbone.net.bn1")) for name in model.frozen_norms)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("backbone", "backbone."),
        (["backbone.net.layer1", "aux_head"], ("backbone.net.layer1.", "aux_head.")),
        (["*.layer4"], "backbone.net.layer4."),
    ],
)
def test_names_and_globs_freeze_what_is_inside(
    model: Segmenter, patterns: Any, expected: str | tuple[str, ...]
) -> None:
    freeze(model, patterns)
    assert _frozen(model) == {name for name, _ in model.named_parameters() if name.startswith(expected)}


def test_norms_stay_in_eval_mode_while_all_of_them_is_frozen(model: Segmenter) -> None:
    model.head.add_module("plain", nn.BatchNorm2d(3, affine=False))
    freeze(model, ["backbone.net.bn1", "backbone.net.layer1.*.weight", "head.plain", "neck"])
    expected = {name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and name.startswith("neck")}
    assert expected
    assert set(model.frozen_norms) == expected | {"backbone.net.bn1", "head.plain"}
    for network in (model, nn.SyncBatchNorm.convert_sync_batchnorm(model)):
        network.eval().train()
        kept = {name for name, module in network.named_modules() if not module.training}
        assert kept == set(model.frozen_norms)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "backbone.layer1",
            r"^freeze=backbone\.layer1 is no part of the network; did you mean .*backbone\.net\.layer1",
        ),
        ("zzz", r"^freeze=zzz is no part of the network; choose from aux_head, backbone, backbone\.stem, head, neck$"),
        (True, r"^freeze=True is no part of the network"),
        ("*", r"leaves nothing to train"),
    ],
)
def test_a_wrong_pattern_is_refused(model: Segmenter, pattern: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        freeze(model, pattern)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["freeze=backbone"], ["freeze=[backbone.stem,neck]", "callbacks=ema"]])
def test_frozen_parts_are_bit_equal_after_20_steps(options: list[str], make_config: MakeConfig) -> None:
    cfg = make_config(*SHORT, *options)
    torch.manual_seed(0)
    module = build.module(cfg, build.datamodule(cfg).spec)
    file = Path(cfg.run_dir).parent / "first.ckpt"
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": dict(module.hparams)}, file)
    cfg.checkpoint = str(file)
    train(cfg)
    last = torch.load(Path(cfg.run_dir, "checkpoints", "last.ckpt"), weights_only=True)
    assert last["global_step"] == 20
    frozen = {f"model.{name}" for name in _frozen(module.model)}
    frozen |= {f"model.{norm}.{name}" for norm in module.model.frozen_norms for name in ("running_mean", "running_var")}
    assert len(frozen) > 10
    trained = last.get("current_model_state", last["state_dict"])  # averages are the latter, rounded at each step
    still = {name for name, tensor in trained.items() if torch.equal(tensor, state[name])}
    assert frozen <= still
    moving = [name for name in state.keys() - frozen if name.endswith(("weight", "running_mean"))]
    assert moving
    assert not still.intersection(moving)
    for name in frozen:
        torch.testing.assert_close(last["state_dict"][name], state[name], rtol=1e-5, atol=0)
