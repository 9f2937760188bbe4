"""Classes that training or validation never meets are named once, unless the check of the masks has named them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fastfcn_pl.core.types import IGNORE, DatasetSpec
from fastfcn_pl.evaluation.metrics import Scores
from fastfcn_pl.training.callbacks.absent_classes import AbsentClasses

SPEC = DatasetSpec("four", ("road", "car", "pole", "sky"), ((0, 0, 0),) * 4)


def _run(
    batches: list[list[int]], masks: list[int], known: dict[str, list[str]], step: int = 0, part: str = ""
) -> None:
    """Train for two epochs on targets of these classes, and validate twice on masks with these pixel counts."""
    callback = AbsentClasses()
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)
    data = SimpleNamespace(absent_classes=known, train_split="trainaug")
    trainer: Any = SimpleNamespace(global_step=step, strategy=strategy, datamodule=data, sanity_checking=False)
    scores = Scores.of(torch.diag(torch.tensor(masks)))
    module: Any = SimpleNamespace(device="cpu", spec=SPEC, scored_part=part, scores=scores)
    callback.on_train_start(trainer, module)
    for _ in range(2):
        for i, classes in enumerate(batches):
            callback.on_train_batch_start(trainer, module, {"target": torch.tensor([[classes]], dtype=torch.uint8)}, i)
        callback.on_train_epoch_end(trainer, module)
        callback.on_validation_end(trainer, module)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "no training crop of the first epoch holds pole, sky\nno mask of val holds car\n"),
        ({"trainaug": ["sky"], "val": ["car"]}, "no training crop of the first epoch holds pole\n"),
    ],
)
def test_each_is_named_once(known: dict[str, list[str]], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    _run([[0, 0, IGNORE], [1, 0, IGNORE]], [5, 0, 3, 2], known)
    assert capsys.readouterr().out == said


def test_nothing_is_said_of_whole_data_of_resumed_runs_and_of_parts_of_a_split(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _run([[0, 1], [2, 3]], [1, 1, 1, 1], {})
    _run([[0]], [1, 1, 1, 1], {}, step=7)
    _run([[0, 1, 2, 3]], [1, 0, 0, 0], {}, part="3 of 101 images")
    assert capsys.readouterr().out == ""
