"""Reports of a score: its protocol, and the number of classes of PASCAL Context."""

from __future__ import annotations

import csv
import io
import json
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
from fastfcn_pl.engine import diagnostics_report, scoring
from fastfcn_pl.evaluation.score_map import ScoreMap
from fastfcn_pl.training.module import SegmentationModule
from tests.conftest import composed
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_diagnostics_are_an_option(tmp_path: Path) -> None:
    spec = _spec("other", 2)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    diagnostics = build.diagnostics(composed("diagnostics=all", "diagnostics.boundary_iou.ratio=0.04"), 2)
    module = _module(spec, _all_class_0)
    results = scoring.score(trainer, module, _Data(spec), "val", diagnostics)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    found = results["diagnostics"]
    # 16 x 16 pixels of class 0, of which the upper half is right: within 1 of the border are 60 and 44 pixels, 30 both
    assert found["boundary_iou"]["classes"]["boundary IoU"] == {"class 0": 30 / (60 + 44 - 30), "class 1": 0.0}
    assert found["boundary_bands"]["scores"]["error by distance"] == {
        "0-1 px": 0.5,
        "1-2 px": 0.5,
        "2-4 px": 0.5,
        "4-8 px": 0.5,
        "8-16 px": None,
        ">16 px": None,
    }
    assert found["components"]["scores"]["recall by area"]["64-256 px"] == 0.5
    assert found["calibration"]["scores"]["ECE"] == {"15 bins": 0.0}  # two equal logits, right in half of the cases
    assert found["fine_grained"]["scores"]["mIoU"]["mIoU^I"] == 0.25
    assert found["stride_ceiling"]["scores"]["mIoU, reduced"] == {
        "stride 4": 1.0,
        "stride 8": 1.0,
        "stride 16": 0.25,
        "stride 32": 0.25,
    }
    page = scoring.markdown(results)
    assert "| boundary iou: mean | 4 % of the diagonal 20.27 |" in page
    assert "| class 0 | 50.00 | 100.00 | 50.00 |" in page
    assert "| class | boundary IoU | ECE | mean IoU of an image | reduced to stride 4 |" in page
    assert trainer.callback_metrics["final/boundary_iou/mean/4 % of the diagonal"] == pytest.approx(15 / 74)
    scoring.report({**results, "checkpoint": "best.ckpt"}, module, str(tmp_path))
    assert {path.name for path in tmp_path.glob("*.png")} == {"confusion.png", "boundary_bands.png", "calibration.png"}
    printed = io.StringIO()
    Console(file=printed, width=80).print(diagnostics_report.table(found))
    assert max(map(len, printed.getvalue().splitlines())) <= 80
    for score in ("4-8 px 50.00", "stride 16 25.00", "mIoU^I of the worst 10 % 25.00"):
        assert score in printed.getvalue().replace("\N{NO-BREAK SPACE}", " ")


def test_without_diagnostics_nothing_is_added(tmp_path: Path) -> None:
    spec = _spec("other", 2)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    module = _module(spec, _all_class_0)
    results = scoring.score(trainer, module, _Data(spec), "val", build.diagnostics(composed(), 2))
    assert "diagnostics" not in results
    assert set(trainer.callback_metrics) == {
        *(f"final/{name}" for name in ("mIoU", "pixel_accuracy", "mean_accuracy", "IoU/class 0", "IoU/class 1"))
    }
    scoring.report({**results, "checkpoint": "best.ckpt"}, module, str(tmp_path))
    assert {path.name for path in tmp_path.glob("*.png")} == {"confusion.png"}
