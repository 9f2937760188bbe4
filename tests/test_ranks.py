"""Several ranks (CPU, gloo) are as good as one: the numbers that they find, the losses that they train with."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L
import pytest
import torch
from omegaconf import DictConfig

from fastfcn_pl import build
from tests.conftest import TINY

pytestmark = pytest.mark.slow
SMALL = [*TINY, "data.train_images=16", "data.size=64", "data.num_workers=0", "seed=3"]
SMALL += ["~callbacks.cost", "~callbacks.progress", "trainer.log_every_n_steps=1"]
MakeConfig = Callable[..., DictConfig]


def _ranks(count: int) -> list[str]:
    """Return the overrides for ranks that are forks of this process, which need not import torch again."""
    return [f"trainer.devices={count}", "trainer.strategy=ddp_fork"]


def _validate(cfg: DictConfig) -> dict[str, float]:
    L.seed_everything(cfg.seed, verbose=False)
    datamodule = build.datamodule(cfg)
    module = build.module(cfg, datamodule.spec)
    (scores,) = build.trainer(cfg).validate(module, datamodule=datamodule, verbose=False)
    return dict(scores)


@pytest.mark.parametrize("images", [7, 2, 1])
def test_any_number_of_ranks_finds_the_same_scores(images: int, make_config: MakeConfig) -> None:
    small = [*SMALL, f"data.val_images={images}"]
    one = _validate(make_config(*small))
    assert 0 < one["val/pixel_accuracy"] < 1
    for count in (2, 3):
        assert _validate(make_config(*small, *_ranks(count))) == pytest.approx(one, abs=0, rel=0, nan_ok=True)


def test_training_goes_on_behind_a_validation_on_which_a_rank_had_no_image(make_config: MakeConfig) -> None:
    cfg = make_config(*SMALL, "data.val_images=1", *_ranks(3), "trainer.max_epochs=2", "data.batch_size=2")
    datamodule = build.datamodule(cfg)
    trainer = build.trainer(cfg)
    trainer.fit(build.module(cfg, datamodule.spec), datamodule=datamodule)
    last = torch.load(f"{cfg.run_dir}/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4
