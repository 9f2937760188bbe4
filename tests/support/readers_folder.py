"""The folder in which a reader types what a page prints: a trained run, photographs, data sets, published weights."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fastfcn_pl.data.datasets.ade20k import ADE20K
from fastfcn_pl.training.module import SegmentationModule
from tests.conftest import ROOT, TINY
from tests.fakes.ade20k import write_ade20k
from tests.fakes.annotations import write_coco
from tests.fakes.archives import LAYOUTS, pack
from tests.fakes.bands import scene, write_tiff
from tests.fakes.camvid import write_camvid
from tests.fakes.folder import photograph, write_folder, write_pairs
from tests.fakes.published import state_dict
from tests.fakes.runs import write_sweep
from tests.fakes.wandb_server import ENTITY
from tests.support import in_process
from tests.support.checkpoints import write_checkpoint

PLACEHOLDERS = {
    "source=<file>": "source=published.pth",
    "output=<file.ckpt>": "output=converted.ckpt",
    "checkpoint=<file.ckpt>": "checkpoint=ade20k.ckpt",
    "checkpoint=<file>": "checkpoint=run/checkpoints/best.ckpt",
    "<run>": "run",
    "<dir>/": "data/",
    "<dir>": "data/ADEChallengeData2016",
    "<entity>/<project>": f"{ENTITY}/fastfcn_pl",
    "$DATA": "data",
}
"""Texts of pages that stand for something of the reader's, and the files in the folder that take their places."""
SHAPES = [*TINY[:2], "trainer.accelerator=cpu", "logger=none", "callbacks.cost.repeats=0", "data.num_workers=0"]
SHAPES += ["model.neck.width=32", "model.head.channels=32", "model.aux_head.channels=16", "optimizer=adamw"]
SHAPES += ["optimizer.lr=6.0e-3", "optimizer.head_lr_ratio=1", "data.size=64", "data.val_images=4", "data.batch_size=8"]


def write_named_files(page: str, folder: Path) -> None:
    """Write the files that a page prints below their names, and the images that its `my_conf/data/pets.yaml` is for."""
    for name, text in re.findall(r"^```\w+\n# (my_[\w/]+\.\w+)(.*?)^```", (ROOT / page).read_text(), re.M | re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"#{text}")
    if page in PETS:
        PETS[page](folder / "pets")


def _write_masks_of_255(root: Path) -> None:
    """Write 9 photographs to train on and 3 to score, whose masks hold 255 for the red thing and 0 elsewhere."""

    def write(path: Path, seed: int) -> np.ndarray:
        pixels, ids = photograph(seed, (240, 320))
        _save(path.with_suffix(".jpg"), pixels)
        return np.where(ids == 1, 255, 0).astype(np.uint8)

    write_pairs(root, {"train": 9, "val": 3}, write)


def _write_three_classes(root: Path) -> None:
    write_folder(root, train=4, val=2)


def _write_parquet(root: Path) -> None:
    """Write the photographs of `_write_masks_of_255` and their masks as Parquet files."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    _write_masks_of_255(root / "files")
    for split in ("train", "val"):
        files = {"image": root / "files" / "images" / split, "label": root / "files" / "masks" / split}
        columns = {name: [file.read_bytes() for file in sorted(path.iterdir())] for name, path in files.items()}
        parquet.write_table(pyarrow.table(columns), root / f"{split}.parquet")


def _write_run(folder: Path) -> None:
    _train(folder, 0, "hydra.run.dir=run", "data.train_images=320", "trainer.max_epochs=2")


def _write_stopped_run(folder: Path) -> None:
    with mock.patch.object(SegmentationModule, "training_step", _interrupted(SegmentationModule.training_step)):
        _train(folder, 130, "data.train_images=24", "trainer.max_epochs=2")


def _train(folder: Path, code: int, *overrides: str) -> None:
    done = in_process.run(["fastfcn_pl.train", *SHAPES, *overrides], folder)
    assert done.returncode == code, done.stderr


def _interrupted(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a training step that presses Ctrl-C before the third one."""

    def training_step(module: SegmentationModule, *arguments: Any) -> Tensor:
        if module.trainer.global_step == 2:
            signal.raise_signal(signal.SIGINT)
        return step(module, *arguments)

    return training_step


def _write_photos(folder: Path) -> None:
    for seed in range(3):
        _save(folder / "photos" / f"{seed}.jpg", photograph(seed)[0])


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


def _write_camvid(folder: Path) -> None:
    """Write the data set, and the archive that it is prepared from."""
    root = folder / "data" / "CamVid"
    write_camvid(root, train=8, val=2, test=1)
    (root / "archives").mkdir()
    for file, places in LAYOUTS["camvid"].items():
        pack(root / "archives" / file, {place: root / path for place, path in places.items()})


def _write_fields(folder: Path) -> None:
    """Write images of eight bands."""

    def write(path: Path, seed: int) -> np.ndarray:
        bands, ids = scene(seed)
        write_tiff(path.with_suffix(".tif"), np.concatenate([bands, bands[..., :3]], axis=2))
        return ids

    write_pairs(folder / "fields", {"train": 4, "val": 2}, write)


def _write_published(folder: Path) -> None:
    shapes = {name: tensor.shape for name, tensor in state_dict("official", "resnet50s", "jpu fcn").items()}
    torch.save({"state_dict": {k: torch.tensor(0.25).expand(s) for k, s in shapes.items()}}, folder / "published.pth")


PETS = {"README.md": _write_masks_of_255, "docs/index.md": _write_three_classes, "docs/data.md": write_coco}
"""Writers of the folder that a page calls pets."""
WRITERS: dict[str, Callable[[Path], Any]] = {
    "<run>": _write_run,
    "checkpoint=<file>": _write_run,
    "checkpoint=<file.ckpt>": lambda folder: write_checkpoint(folder / "ade20k.ckpt", ADE20K.spec),
    "source=<file>": _write_published,
    "resume=last": _write_stopped_run,
    "runs/neck_ablation": lambda folder: write_sweep(folder / "runs/neck_ablation", ["jpu_128", "dilated"], [0, 1]),
    "photos": _write_photos,
    "<dir>/CamVid": _write_camvid,
    "-cn heads": _write_camvid,
    "data=ade20k": lambda folder: write_ade20k(folder / "data" / "ADEChallengeData2016"),
    "data=fields": _write_fields,
    "data.root=scenes": lambda folder: _write_parquet(folder / "scenes"),
}
"""Words of commands, and the writers of what they assume."""
