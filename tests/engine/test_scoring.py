"""Reports of a score: its protocol, and the number of classes of PASCAL Context."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from fastfcn_pl.config import build
from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.data.dataset import Source
from fastfcn_pl.engine import scoring
from fastfcn_pl.evaluation.score_map import ScoreMap
from fastfcn_pl.training.module import SegmentationModule
from tests.fakes.network import Network


def _spec(name: str, classes: int) -> DatasetSpec:
    return DatasetSpec(name, tuple(f"class {i}" for i in range(classes)), ((0, 0, 0),) * classes)


class _Halves(Source):
    """Data set of one image with class 0 above class 1."""

    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.zeros((16, 16), np.uint8)
        ids[8:] = 1
        return np.zeros((16, 16, 3), np.uint8), ids


class _Data(SegmentationDataModule):
    def __init__(self, spec: DatasetSpec) -> None:
        super().__init__(0, batch_size=1, num_workers=0, augmentation=None)  # type: ignore[arg-type]
        self.spec = spec  # type: ignore[misc]

    def source(self, split: str) -> Source:
        return _Halves()


def _module(spec: DatasetSpec, protocol: Any) -> SegmentationModule:
    network: Any = Network(spec.num_classes, align_corners=True)
    nobody: Any = None
    return SegmentationModule(network, nn.Identity(), protocol, spec, nobody, nobody, False, False, {})


def _all_class_0(model: Any, x: torch.Tensor, size: tuple[int, int]) -> ScoreMap:
    return ScoreMap.of(torch.zeros(len(x), 2, *size))


@pytest.mark.parametrize(
    ("name", "classes", "said"),
    [
        (
            "pascal_context",
            59,
            "val, 59 classes, protocol _all_class_0: mIoU 25.00 (24.58 over 60 classes, with 0 for background)",
        ),
        ("pascal_context", 60, "val, 60 classes, protocol _all_class_0: mIoU 25.00, pixel"),
        ("other", 59, "other val, protocol _all_class_0: mIoU 25.00, pixel"),
    ],
)
def test_pascal_context_says_over_how_many_classes(name: str, classes: int, said: str, tmp_path: Path) -> None:
    spec = _spec(name, classes)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    results = scoring.score(trainer, _module(spec, _all_class_0), _Data(spec), "val")
    assert said in scoring.headline(results)
    scoring.write(results, tmp_path)
    assert said in (tmp_path / "results.md").read_text()
    assert results.get("mIoU_60_classes") == (0.25 * 59 / 60 if "24.58" in said else None)


def test_a_mean_over_some_classes_says_over_how_many() -> None:
    spec = _spec("other", 4)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    results = scoring.score(trainer, _module(spec, _all_class_0), _Data(spec), "val")
    results["absent_classes"] = list(results["IoU"])[1:2]
    assert scoring.headline(results).endswith(", over 3 of 4 classes")
    assert "over 3 of 4 classes (1 images)" in scoring.markdown(results)
    assert "over" not in scoring.headline({**results, "absent_classes": []})


def test_the_confusion_matrix_is_written_by_name(tmp_path: Path) -> None:
    scoring.write_confusion(torch.tensor([[3, 1], [0, 2**40]]), ("sky", "car, parked"), tmp_path)
    with (tmp_path / "confusion.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert Image.open(tmp_path / "confusion.png").format == "PNG"
    assert rows == [["true class", "sky", "car, parked"], ["sky", "3", "1"], ["car, parked", "0", str(2**40)]]


@pytest.mark.parametrize("data", ["ade20k", "coco_stuff", "cityscapes", "pascal_context", "pascal_voc", "camvid"])
@pytest.mark.parametrize("terminal", [True, False])
def test_the_table_of_classes_is_whole_in_80_columns(data: str, terminal: bool) -> None:
    spec = build.datamodule(build.compose([f"data={data}"])).spec
    values = {name: (i + 1) / (spec.num_classes + 1) for i, name in enumerate(spec.classes)}
    results = {"data": data, "split": "val", "protocol": "encoding_ms", "IoU": values, "accuracy": values}
    printed = io.StringIO()
    console = Console(file=printed, width=80, force_terminal=terminal, color_system="truecolor" if terminal else None)
    console.print(scoring.class_table({**results, "share": values}, spec.palette if terminal else None))
    text = printed.getvalue()
    assert ("\x1b[" in text) == terminal
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 80
    assert "…" not in plain
    for name, value in values.items():
        assert re.search(rf"[│■] {re.escape(name)} +│ +{100 * value:.2f} │", plain), name
    if terminal:  # the class's own colour, and one of three for its IoU
        first, last = (";".join(map(str, spec.palette[i])) for i in (0, -1))
        assert all(f"38;2;{colour}m" in text for colour in (first, last, "213;94;0", "230;159;0", "86;180;233"))


def test_boundary_iou_is_an_option(tmp_path: Path) -> None:
    spec = _spec("other", 2)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    results = scoring.score(trainer, _module(spec, _all_class_0), _Data(spec), "val", boundary_ratio=0.04)
    # 16 x 16 pixels of class 0, of which the upper half is right: within 1 of the border are 60 and 44 pixels, 30 both
    assert results["boundary_IoU"] == {"class 0": 30 / (60 + 44 - 30), "class 1": 0.0}
    page = scoring.markdown(results)
    lines = page.splitlines()
    assert lines[lines.index("| class | IoU | boundary IoU | accuracy | pixel share |") + 2].startswith(
        "| class 0 | 50.00 |"
    )
    assert "Mean boundary IoU 20.27, with a boundary of 0.04 of the diagonal." in page
