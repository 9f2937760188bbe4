"""Scores of single images, and overlays of the worst ones."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastfcn_pl.core.types import IGNORE, DatasetSpec
from fastfcn_pl.training.callbacks.image_scores import ImageScores

SPEC = DatasetSpec("two", ("left", "right"), ((200, 0, 0), (0, 0, 200)))


class _Source:
    def files(self, index: int) -> tuple[Path, ...]:
        return (Path(f"{index}.jpg"), Path(f"{index}.png")) if index else ()

    def name(self, index: int) -> str:
        return f"drawing {index}"


def _run(folder: Path, wrong: list[int | None], worst: int) -> None:
    """Score images of 10 columns with labels of class 0; the first `wrong` columns are predicted as class 1."""
    loaders = SimpleNamespace(dataset=SimpleNamespace(source=_Source()))
    trainer: Any = SimpleNamespace(world_size=1, is_global_zero=True, test_dataloaders=loaders, loggers=[])
    module: Any = SimpleNamespace(spec=SPEC)
    callback = ImageScores(folder=str(folder), worst=worst)
    callback.on_test_epoch_start(trainer, module)
    for index, columns in enumerate(wrong):
        target = torch.full((1, 8, 10), IGNORE if columns is None else 0, dtype=torch.uint8)
        prediction = torch.zeros(1, 8, 10, dtype=torch.int64)
        prediction[..., : columns or 0] = 1
        batch = {"image": torch.zeros(1, 3, 8, 10, dtype=torch.uint8), "target": target, "index": torch.tensor([index])}
        callback.on_test_batch_end(trainer, module, {"prediction": prediction}, batch, index)
    callback.on_test_epoch_end(trainer, module)


def test_images_are_listed_from_worst_to_best(tmp_path: Path) -> None:
    _run(tmp_path, [0, 5, None, 2, 9], worst=2)
    with (tmp_path / "images.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    # with a wrong pixel, class 1 has an IoU of 0, and class 0 the share that is right
    assert rows == [
        ["image", "mIoU", "pixel_accuracy"],
        ["4.jpg", "0.050000", "0.100000"],
        ["1.jpg", "0.250000", "0.500000"],
        ["3.jpg", "0.400000", "0.800000"],
        ["drawing 0", "1.000000", "1.000000"],
        ["2.jpg", "", ""],
    ]
    content = np.load(tmp_path / "images.npz")
    assert content["position"].tolist() == [0, 1, 2, 3, 4]
    assert content["counts"][1].tolist() == [[40, 0], [80, 0], [40, 40]]  # correct, labelled, predicted
    assert content["counts"][2].tolist() == [[0, 0]] * 3
    sheet = np.asarray(Image.open(tmp_path / "worst.png"))
    one = tmp_path / "one"
    _run(one, [9], worst=2)
    assert sheet.shape[0] == 2 * np.asarray(Image.open(one / "worst.png")).shape[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.csv", "images.npz", "one", "worst.png"]


def test_without_worst_there_is_the_list_only(tmp_path: Path) -> None:
    _run(tmp_path, [3], worst=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.csv", "images.npz"]
