"""Checkpoints of tiny networks as a run leaves them, without training."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from fastfcn_pl.config import build
from fastfcn_pl.config.stored_config import storable_config
from fastfcn_pl.core.types import DatasetSpec
from tests.conftest import TINY, composed
from tests.fakes.network import fill_statistics

SPEC = DatasetSpec("camvid", ("sky", "car, <parked>", "a|b"), ((70, 130, 180), (220, 20, 60), (0, 128, 0)))


def write_checkpoint(path: Path, spec: DatasetSpec = SPEC, seed: int = 7) -> Path:
    """Write a random network for the classes of `spec`, configured as a run on CamVid; return `path`."""
    torch.manual_seed(seed)
    cfg = composed(*TINY, "data=camvid", f"data.root={path.parent}", f"run_dir={path.parent}")
    module = build.module_to_predict(cfg, spec, storable_config(cfg))
    fill_statistics(module.model)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, path)
    return path


def write_results(path: Path, checkpoint: str, mean_iou: float = 0.5) -> Path:
    """Write the `results.json` of a run whose best checkpoint is `checkpoint`; return `path`."""
    by_class = dict.fromkeys(SPEC.classes, mean_iou)
    results = {
        **{"data": "camvid", "split": "val", "protocol": "native", "protocol_options": {}, "images": 101},
        **{"mIoU": mean_iou, "pixel_accuracy": 0.9, "mean_accuracy": 0.7, "absent_classes": []},
        **{"IoU": by_class, "accuracy": by_class, "share": by_class},
        **{"parameters": 2_500_000, "gmacs": 1.25, "cost": {"size": [512, 512], "latency_ms": 12.5}},
        **{"steps": 40, "seed": 0, "commit": "0123abc", "versions": {"torch": "2.14.1"}, "processor": "1 x CPU"},
        "choices": {"model/backbone": "resnet18", "model/neck": "jpu", "model/head": "fcn"},
        "checkpoint": checkpoint,
    }
    path.write_text(json.dumps(results))
    return path
