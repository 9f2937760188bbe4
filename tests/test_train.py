"""Whole runs, by the commands that users give: train, look, score again, report, extend."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastfcn_pl.config import build
from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.engine import checkpoint
from fastfcn_pl.evaluation.protocols import logits
from fastfcn_pl.tools.train import train
from fastfcn_pl.training.module import SegmentationModule
from tests.conftest import ROOT, TINY
from tests.fakes.camvid import write_camvid
from tests.fakes.folder import write_folder
from tests.support import wandb_file

pytestmark = pytest.mark.slow
Command = Callable[..., subprocess.CompletedProcess[str]]
CLASSES = 11
FAST = [*TINY, "data=camvid", "data.batch_size=2", "data.num_workers=0", "data.augmentation.crop_size=48"]
FAST += ["trainer.max_epochs=2", "trainer.log_every_n_steps=1", "callbacks.samples.count=2"]


@pytest.fixture
def camvid(tmp_path: Path) -> str:
    return str(write_camvid(tmp_path / "CamVid", train=5, val=3))


@pytest.fixture
def run(command: Command, tmp_path: Path, camvid: str) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Train as a user does, with W&B offline; return the run's folder, and what was printed."""
    done = command("train", *FAST, "logger=wandb", "logger.wandb.mode=offline", f"data.root={camvid}")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    return folder, done


def _results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_a_run_leaves_everything_that_it_promises(
    run: tuple[Path, subprocess.CompletedProcess[str]], command: Command, tmp_path: Path
) -> None:
    folder, done = run
    results = _results(folder)

    # what was printed
    assert "bicyclist" in done.stdout
    assert f"mIoU {100 * results['mIoU']:.2f}" in done.stdout
    for place in ("checkpoints/best.ckpt", "overlays", "results.md", "wandb sync"):
        assert place in done.stdout

    # what was written
    assert {"protocol": "native", "world_size": 1, "split": "val", "images": 3, "steps": 4, "epochs": 2}.items() <= (
        results.items()
    )
    assert 0 <= results["mIoU"] <= 1
    assert len(results["IoU"]) == CLASSES
    assert results["choices"]["model/neck"] == "jpu"
    assert torch.__version__.startswith(results["versions"]["torch"])
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    pictures = sorted((folder / "overlays").iterdir())
    assert [p.name for p in pictures] == ["0.png", "1.png"]
    assert np.asarray(Image.open(pictures[0])).std() > 10
    assert "| road |" in (folder / "results.md").read_text()
    with (folder / "metrics" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    best = max(float(row["val/mIoU"]) for row in rows if row["val/mIoU"])
    assert best == pytest.approx(results["mIoU"], abs=1e-6)
    columns = ("train/loss", "train/cross_entropy", "train/aux_cross_entropy", "lr-SGD/backbone", "lr-SGD/head")
    for column in (*columns, "val/IoU/road", "train/images_per_second"):
        assert any(row[column] for row in rows), column

    # what W&B has
    logged = wandb_file.history(folder)
    for key in ("train/loss", "val/mIoU", "val/pixel_accuracy", "val/IoU/sky", "final/mIoU"):
        assert key in logged, key
    masks = logged["val/samples/0.masks.truth.path"]
    assert len(masks) == len(logged["val/samples/0.masks.prediction.path"]) == 2
    stored = next(folder.rglob(f"media/**/{Path(masks[0]).name}"))
    assert np.asarray(Image.open(stored)).shape[:2] == (60, 80)
    started = wandb_file.config(folder)
    assert started["model"]["neck"]["width"] == 8
    assert wandb_file.exit_code(folder) == 0

    # the same numbers from the checkpoint alone
    again = command("evaluate", f"checkpoint={folder}/checkpoints/best.ckpt")
    assert again.returncode == 0, again.stderr
    (scored,) = (tmp_path / "runs" / "evaluate").iterdir()
    for key in ("mIoU", "pixel_accuracy", "mean_accuracy", "IoU", "accuracy", "share"):
        assert _results(scored)[key] == results[key], key

    # from Python
    module = checkpoint.load(folder / "checkpoints" / "best.ckpt")
    assert not module.training
    assert logits(module.model, torch.randn(2, 3, 33, 47)).shape == (2, CLASSES, 33, 47)

    # and a page about it
    page = command("report", str(folder), "output=pages")
    assert page.returncode == 0, page.stderr
    text = (tmp_path / "pages" / "train.md").read_text()
    assert f"| {100 * results['mIoU']:.2f} |" in text
    for name in ("curves_0.svg", "samples_0.jpg"):
        assert (tmp_path / "pages" / "train" / name).stat().st_size > 1000
        assert f"train/{name}" in text
    assert str(tmp_path) not in text.partition("## IoU")[0]
    (tmp_path / "pages" / "train.md").write_text(text.replace("Not written yet.", "It learns."))
    command("report", str(folder), "output=pages")
    assert (tmp_path / "pages" / "train.md").read_text().endswith("It learns.\n")


def test_evaluate_takes_another_root_and_split_and_refuses_other_classes(
    command: Command, tmp_path: Path, camvid: str, make_config: Callable[..., DictConfig]
) -> None:
    train(make_config(*FAST, f"data.root={camvid}", "trainer.max_epochs=1"))
    best = f"checkpoint={tmp_path}/run/checkpoints/best.ckpt"
    moved = write_camvid(tmp_path / "elsewhere", train=1, test=4)
    done = command("evaluate", best, f"data.root={moved}", "split=test", f"run_dir={tmp_path}/scored")
    assert done.returncode == 0, done.stderr
    assert _results(tmp_path / "scored")["images"] == 4
    assert "camvid test, protocol native: mIoU" in done.stdout
    other = ["protocol=encoding_ms", "protocol.base_size=64", "protocol.crop_size=48", f"run_dir={tmp_path}/other"]
    done = command("evaluate", best, *other)
    assert done.returncode == 0, done.stderr
    assert "camvid val, protocol encoding_ms: mIoU" in done.stdout
    assert _results(tmp_path / "other")["protocol_options"]["scales"] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert {"confusion.csv", "confusion.png", "images.csv", "worst.png"} < {
        p.name for p in (tmp_path / "other").iterdir()
    }
    done = command("evaluate", best, "protocol=sliding", "+protocol.widnow=64")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert (
        "protocol.widnow: fastfcn_pl.evaluation.protocols.sliding has no such parameter; did you mean window?"
        in done.stderr
    )
    done = command("evaluate", best, "data=shapes")
    assert done.returncode == 1
    assert "knows the 11 classes of camvid, not the 8 of shapes" in done.stderr
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes((tmp_path / "run/checkpoints/best.ckpt").read_bytes()[:5000])
    done = command("evaluate", f"checkpoint={broken}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "broken.ckpt cannot be read" in done.stderr


def test_a_crash_closes_the_wandb_run_as_failed(command: Command, tmp_path: Path, camvid: str) -> None:
    (tmp_path / "bomb.py").write_text(
        "import lightning as L\n"
        "class Bomb(L.Callback):\n"
        "    def on_train_batch_end(self, *args):\n"
        "        raise ZeroDivisionError('boom')\n"
    )
    arguments = [*FAST, f"data.root={camvid}", "logger=wandb", "+callbacks.bomb._target_=bomb.Bomb"]
    done = command("train", *arguments)
    assert done.returncode != 0
    assert "boom" in done.stderr
    assert wandb_file.exit_code(tmp_path / "runs") == 1


def test_a_bad_mask_met_by_a_worker_is_one_line(command: Command, tmp_path: Path, camvid: str) -> None:
    bad = Path(camvid) / "trainannot" / "0003.png"
    Image.fromarray(np.full((60, 80), 77, np.uint8)).save(bad)
    done = command("train", *FAST, f"data.root={camvid}", "data.num_workers=1")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {bad} has the id 77, which camvid (11 classes)")
    assert "Traceback" not in done.stderr


OWN_PARTS = '''
import torch
from torch import nn
from fastfcn_pl.core.types import FeatureInfo

class Patches(nn.Module):
    """A backbone of three strided convolutions."""
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    def __init__(self, *, channels):
        super().__init__()
        self.out_info = FeatureInfo(tuple(channels), (8, 16, 32))
        self.first = nn.Conv2d(3, channels[0], 9, 8, 4)
        self.rest = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(channels, channels[1:]))
    def forward(self, x):
        levels = [self.first(x)]
        for layer in self.rest:
            levels.append(layer(levels[-1]))
        return levels

class Mixer(nn.Module):
    def __init__(self, in_info, align_corners, *, width):
        super().__init__()
        self.layer = nn.Conv2d(in_info.channels[0], width, 1)
        self.out_info = in_info.append(width, in_info.strides[0])
    def forward(self, levels):
        return [*levels, self.layer(levels[0])]

class Linear(nn.Module):
    def __init__(self, in_info, num_classes, align_corners, *, bias):
        super().__init__()
        self.layer = nn.Conv2d(in_info.channels[-1], num_classes, 1, bias=bias)
    def forward(self, levels):
        return self.layer(levels[-1])

class Focal(nn.Module):
    def __init__(self, *, gamma):
        super().__init__()
        self.gamma = gamma
    def forward(self, logits, target, align_corners):
        full = nn.functional.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=align_corners)
        loss = nn.functional.cross_entropy(full, target.long(), ignore_index=255, reduction="none")
        return ((1 - torch.exp(-loss)) ** self.gamma * loss).mean()
'''
OWN_OPTIONS = {
    "model/backbone/patches": "_target_: own_parts.Patches\nchannels: [8, 12, 16]\n",
    "model/neck/mixer": "_target_: own_parts.Mixer\n_partial_: true\nwidth: 6\n",
    "model/head/linear": "_target_: own_parts.Linear\n_partial_: true\nbias: true\n",
    "loss/focal": (
        "_target_: fastfcn_pl.losses.weighted_sum.WeightedSum\n"
        "terms:\n"
        "  focal:\n"
        "    _target_: fastfcn_pl.losses.weighted_sum.Term\n"
        "    output: logits\n"
        "    weight: 1.0\n"
        "    loss: {_target_: own_parts.Focal, gamma: 2.0}\n"
    ),
}


def test_own_parts_train_without_an_edit_to_any_file(command: Command, tmp_path: Path, camvid: str) -> None:
    (tmp_path / "own_parts.py").write_text(OWN_PARTS)
    for name, text in OWN_OPTIONS.items():
        path = tmp_path / "own" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    arguments = ["-cd", "own", "model/backbone=patches", "model/neck=mixer", "model/head=linear", "loss=focal"]
    arguments += ["model/aux_head=none", *FAST[len(TINY) :], f"data.root={camvid}", "logger=none"]
    done = command("train", *arguments, "trainer.max_steps=2", "model.neck.width=7", f"run_dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert _results(tmp_path / "run")["steps"] == 2
    weights = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert weights["model.head.layer.weight"].shape == (CLASSES, 7, 1, 1)
    typo = command("train", *arguments, "+model.neck.widht=7")
    assert "error: model.neck.widht: own_parts.Mixer has no such parameter; did you mean width?" in typo.stderr


def test_your_own_data_trains_by_the_yaml_of_the_documentation(command: Command, tmp_path: Path) -> None:
    text = (
        (ROOT / "docs" / "data.md").read_text().partition("```yaml\n# my_conf/data/pets.yaml\n")[2].partition("```")[0]
    )
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    (tmp_path / "my_conf" / "data" / "pets.yaml").write_text(text)
    pets = write_folder(tmp_path / "pets", all=12)
    (pets / "images" / "all").rename(pets / "photos")
    (pets / "masks" / "all").rename(pets / "labels")
    (pets / "train.txt").write_text("".join(f"{i:03d}.jpg\n" for i in range(8)))
    (pets / "val.txt").write_text("".join(f"{i:03d}.jpg\n" for i in range(8, 12)))
    learn = ["data/augmentation=flip", "optimizer=adamw", "optimizer.lr=0.01", "optimizer.head_lr_ratio=1"]
    learn += ["trainer.max_epochs=30", "trainer.check_val_every_n_epoch=10", "data.num_workers=0"]
    wandb = ["logger=wandb", "logger.wandb.mode=offline"]
    done = command("train", "-cd", "my_conf", "data=pets", *TINY[:-1], *learn, *wandb, f"run_dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    results = _results(tmp_path / "run")
    assert list(results["IoU"]) == ["background", "cat", "dog"]
    assert (results["data"], results["images"], results["steps"]) == ("pets", 4, 60)
    assert results["mIoU"] > 0.5
    assert wandb_file.config(tmp_path / "run")["data"]["remap"] == {"0": 0, "1": 1, "2": 2, "9": 255}

    best = f"checkpoint={tmp_path}/run/checkpoints/best.ckpt"
    again = command("evaluate", best, f"run_dir={tmp_path}/again")
    assert again.returncode == 0, again.stderr
    assert _results(tmp_path / "again")["IoU"] == results["IoU"]
    (pets / "one.txt").write_text("003.jpg\n")
    one = command("evaluate", best, "+data.splits.val.list=one.txt", f"run_dir={tmp_path}/one")
    assert one.returncode == 0, one.stderr
    assert _results(tmp_path / "one")["images"] == 1
    wrong = command("evaluate", best, "split=test")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "error: pets has no split test, only train, val: set data.splits.test" in wrong.stderr
    done = command("predict", best, "input=pets/photos", "output=labelled")
    assert done.returncode == 0, done.stderr
    found = sorted((tmp_path / "labelled" / "labels").iterdir())
    assert len(found) == 12
    assert set(np.unique([np.asarray(Image.open(path)) for path in found])) <= {0, 1, 2}


def _train(make_config: Callable[..., DictConfig], camvid: str, *overrides: str) -> Path:
    """Train in this process, with `overrides` in the place of what `FAST` says of the same keys; return the folder."""
    swapped = [o.split("=")[0] for o in overrides]
    nodes = [name.replace("/", ".") for name in swapped if "/" in name]  # an option takes the place of a node's keys
    kept = [o for o in FAST if o.split("=")[0] not in swapped and not any(o.startswith(f"{n}.") for n in nodes)]
    cfg = make_config(*kept, f"data.root={camvid}", "callbacks.cost.repeats=0", *overrides)
    train(cfg)
    return Path(cfg.run_dir)


def _last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_accumulation_makes_fewer_steps(
    camvid: str, make_config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are there in a forward pass while they accumulate, and no longer."""
    held = []

    def training_step(module: SegmentationModule, *batch: Any) -> torch.Tensor:
        held.append(any(p.grad is not None for p in module.parameters()))
        return trained(module, *batch)

    trained = SegmentationModule.training_step
    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    flags = ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0", "trainer.log_every_n_steps=0"]
    assert _last(_train(make_config, camvid, *flags))["global_step"] == 2  # 2 epochs of 2 batches
    assert held == [False, True, False, True]


def test_steps_can_be_counted_in_place_of_epochs(camvid: str, make_config: Callable[..., DictConfig]) -> None:
    """Three steps end inside the second epoch: the last weights are validated, too, and kept."""
    folder = _train(make_config, camvid, "model/neck=none", "trainer.max_epochs=-1", "trainer.max_steps=3")
    assert _last(folder)["global_step"] == _results(folder)["steps"] == 3
    assert _results(folder)["checkpoint_step"] in (2, 3)
    assert not any("neck" in name for name in _last(folder)["state_dict"])


def test_dilated_with_tensorboard_and_early_stopping(camvid: str, make_config: Callable[..., DictConfig]) -> None:
    options = ["model/neck=dilated", "optimizer=adamw", "logger=tensorboard", "callbacks=early_stopping"]
    folder = _train(make_config, camvid, *options)
    events = EventAccumulator(str(next(folder.rglob("events.out.tfevents.*")).parent)).Reload()
    assert {"val/mIoU", "train/loss", "val/IoU/road"} <= set(events.Tags()["scalars"])
    assert {"val/samples/0", "val/samples/1"} <= set(events.Tags()["images"])
    assert any(name.startswith("EarlyStopping") for name in _last(folder)["callbacks"])


def test_bfloat16_trains_in_bfloat16(
    camvid: str, make_config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU it also leaves channels_last alone, in which gradients of dilated depthwise convolutions are wrong."""
    types: set[torch.dtype] = set()
    formats: set[torch.memory_format] = set()

    def watch(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(layer, torch.nn.Conv2d) and layer.groups > 1:
            types.add(output.dtype)

    def training_step(module: SegmentationModule, *batch: Any) -> torch.Tensor:
        formats.add(module.memory_format)
        return trained(module, *batch)

    trained = SegmentationModule.training_step
    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    hook = torch.nn.modules.module.register_module_forward_hook(watch)
    options = ["trainer.precision=bf16-mixed", "data/augmentation=flip", "model.backbone.name=mobilenetv3_small_050"]
    folder = _train(make_config, camvid, *options)
    hook.remove()
    assert torch.bfloat16 in types
    assert formats == {torch.contiguous_format}
    assert all(v.dtype != torch.bfloat16 for v in _last(folder)["state_dict"].values())


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "bf16-true", "bf16"])
def test_half_precision_on_a_cpu_leaves_channels_last_alone(
    precision: str, make_config: Callable[..., DictConfig]
) -> None:
    """Lightning takes bfloat16 there whichever of them is named."""
    spec = DatasetSpec("two", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    formats = []
    for name in (precision, "32"):
        cfg = make_config(*TINY, "model.backbone.name=test_convnext", f"trainer.precision={name}")
        module = build.module(cfg, spec)
        module.trainer = build.trainer(cfg)
        module.setup("fit")
        formats.append(module.memory_format)
    assert formats == [torch.contiguous_format, torch.channels_last]


def test_last_is_last_when_nothing_improves(camvid: str, make_config: Callable[..., DictConfig]) -> None:
    still = ["optimizer.lr=0.0", "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=1"]
    folder = _train(make_config, camvid, *still, "model.backbone.name=test_convnext")
    assert _last(folder)["global_step"] == _results(folder)["steps"] == 8


@pytest.mark.parametrize("accumulated", [2, 16])
def test_the_learning_rate_ends_at_the_schedules_end(accumulated: int, make_config: Callable[..., DictConfig]) -> None:
    """Two steps an epoch, whatever the number of batches that each accumulates."""
    given = [*TINY, f"data.train_images={4 * accumulated}", "data.val_images=1", "data.size=32", "data.batch_size=2"]
    given += ["data.num_workers=0", f"trainer.accumulate_grad_batches={accumulated}", "trainer.max_epochs=3"]
    cfg = make_config(*given, "trainer.log_every_n_steps=1", "~callbacks.cost")
    train(cfg)
    with (Path(cfg.run_dir) / "metrics" / "metrics.csv").open(newline="") as file:
        rates = [float(row["lr-SGD/head"]) for row in csv.DictReader(file) if row["lr-SGD/head"]]
    # lr x effective batch / 16, head x 10, by the poly schedule over 6 steps
    steps = [0.01 * 2 * accumulated / 16 * 10 * (1 - step / 6) ** 0.9 for step in range(6)]
    assert sorted(set(rates), reverse=True) == pytest.approx(steps)
    last = _last(Path(cfg.run_dir))
    assert last["lr_schedulers"][0]["_last_lr"] == [0, 0]
    assert last["global_step"] == last["lr_schedulers"][0]["total_iters"] == 6


def test_equal_seeds_give_equal_runs(camvid: str, make_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    def weights(name: str, *overrides: str) -> dict[str, torch.Tensor]:
        cfg = make_config(*FAST, f"data.root={camvid}", "trainer.max_epochs=1", *overrides)
        cfg.run_dir = str(tmp_path / name)
        train(cfg)
        return torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    first, second, other = weights("a"), weights("b", "data.num_workers=2"), weights("c", "seed=1")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.exhaustive
def test_quickstart_learns(command: Command, tmp_path: Path) -> None:
    done = command("train", "-cn", "quickstart", OMP_NUM_THREADS="2", fresh=True)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "quickstart").iterdir()
    assert _results(folder)["mIoU"] >= 0.75
