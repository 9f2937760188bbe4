"""Mistakes of the user: one line with cause, place and remedy, exit code 1, and an unchanged folder."""

from __future__ import annotations

import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from fastfcn_pl.tools.train import train
from tests.conftest import TINY
from tests.fakes.camvid import write_camvid
from tests.support.grids import sample

pytestmark = pytest.mark.slow
Command = Callable[..., subprocess.CompletedProcess[str]]
FAST = [*TINY, "data=camvid", "data.root=CamVid", "data.batch_size=2", "data.num_workers=0"]
FAST += ["data.augmentation.crop_size=48", "trainer.max_epochs=1", "callbacks.cost.repeats=0"]


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    return write_camvid(tmp_path / "CamVid", train=4, val=2)


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Callable[..., None]:
    """Return a function that runs a command, which has to fail with one line and change no file."""

    def run(module: str, *arguments: str, words: tuple[str, ...], **options: Any) -> None:
        before = sorted(tmp_path.rglob("*"))
        done = command(module, *arguments, **options)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, done.stderr
        assert all(word in lines[0] for word in words), lines[0]
        assert sorted(tmp_path.rglob("*")) == before

    return run


def _bad_mask(root: Path) -> None:
    Image.fromarray(np.full((60, 80), 77, np.uint8)).save(root / "trainannot" / "0001.png")


def _small_mask(root: Path) -> None:
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(root / "trainannot" / "0001.png")


def _truncated(root: Path) -> None:
    path = root / "train" / "0001.png"
    path.write_bytes(path.read_bytes()[:1000])


def _not_an_image(root: Path) -> None:
    (root / "train" / "0001.png").write_text("hello")


def _no_mask(root: Path) -> None:
    (root / "trainannot" / "0001.png").unlink()


def _empty_split(root: Path) -> None:
    (root / "train.txt").write_text("")


def _no_split(root: Path) -> None:
    (root / "train.txt").unlink()


@pytest.mark.parametrize("workers", sample([0, 2], 2))
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_bad_mask, ("trainannot/0001.png has the id 77", "fix the mask")),
        pytest.param(
            _small_mask,
            ("trainannot/0001.png is 40x30 but its image", "is 80x60"),
            marks=pytest.mark.exhaustive,
        ),
        (_truncated, ("train/0001.png cannot be read", "restore it")),
        pytest.param(_not_an_image, ("train/0001.png cannot be read", "restore it"), marks=pytest.mark.exhaustive),
        (_no_mask, ("lacks 1 files, such as CamVid/trainannot/0001.png", "restore them")),
        (_empty_split, ("split train of camvid is empty", "check data.root")),
        (_no_split, ("train.txt is missing", "git clone")),
    ],
)
def test_bad_data(
    spoil: Callable[[Path], None], words: tuple[str, ...], workers: int, camvid: Path, refused: Callable[..., None]
) -> None:
    spoil(camvid)
    refused("train", *FAST, f"data.num_workers={workers}", words=words)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sead=1"], ("sead: no such key", "seed")),
        (["model/neck/upsampler=sapa"], ("model/neck/upsampler=...: the chosen model/neck has no upsampler",)),
        (["model.neck.widht=3"], ("model.neck.widht: no such key", "width")),
        (["+data.augmentation.crop=3"], ("data.augmentation.crop", "no such parameter", "crop_size")),
        (["model/neck=jup"], ("model/neck/jup", "jpu")),
        (["model.backbone.name=resnet5"], ("model.backbone.name=resnet5", "did you mean")),
        (["model.backbone.name=vit_tiny_patch16_224"], ("vit_tiny_patch16_224 does not serve", "strides")),
        (["model/neck=dilated", "model.backbone.name=test_vit"], ("output_stride=8", "take a net")),
        (["data.root=nowhere"], ("data.root=nowhere is not a folder", "git clone")),
        (["data.root="], ("data.root is empty", "give the folder")),
        (["data.root=~/CamVid"], ("data.root=~/CamVid: ", "'data.root=\"...\"'", "$HOME")),
        (["data.root='~/nowhere'"], ("/nowhere is not a folder", "git clone")),
        (["data.batch_size=100"], ("fewer than data.batch_size=100", "lower the batch size")),
        (["data.batch_size=1", "model/head=psp"], ("data.batch_size=1", "raise the batch size", "model/head=fcn")),
        (["trainer.accelerator=gpu"], ("trainer.accelerator=gpu: No supported gpu backend found; use trainer",)),
        (["trainer.max_epochs=ten"], ("trainer.max_epochs=ten: use a whole number",)),
        (["trainer.max_epochs=-1"], ("set trainer.max_epochs or trainer.max_steps",)),
        (["trainer.precision=17"], ("trainer cannot be built", "17")),
        (["model.backbone.pretrained=nothing.pth"], ("pretrained=nothing.pth: no such file", "false")),
        (["run_dir=CamVid/train.txt/run"], ("CamVid/train.txt", "cannot be written")),
        (["hydra.run.dir=CamVid/train.txt/run"], ("CamVid/train.txt/run", "cannot be written")),
        (["resume=nothing.ckpt"], ("resume=nothing.ckpt: no such file", "checkpoints/")),
        (["resume=last"], ("no run in runs/train/", "last.ckpt")),
        (["checkpoint=nothing.ckpt"], ("checkpoint=nothing.ckpt: no such file",)),
        (["init_from=nothing.ckpt"], ("init_from=... is now checkpoint=...",)),
        (["+sead=1"], ("sead: no such key", "seed")),
        (["+init_from=nothing.ckpt"], ("init_from=... is now checkpoint=...",)),
        (["checkpoint=last"], ("checkpoint=last: no run in runs/ has a checkpoint",)),
        (["checkpoint=auto"], ("checkpoint=auto is now resume=auto",)),
        (["resume=CamVid/checkpoints/x.ckpt"], ("resume=CamVid/checkpoints/x.ckpt: no such file",)),
        (["checkpoint=CamVid/train.txt"], ("train.txt cannot be read", "not a torch file")),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_settings(arguments: list[str], words: tuple[str, ...], camvid: Path, refused: Callable[..., None]) -> None:
    keys = {argument.split("=")[0].lstrip("+").replace("/", ".") for argument in arguments}
    kept = [a for a in FAST if not any(a.split("=")[0].startswith(key) for key in keys)]
    refused("train", *kept, *arguments, words=words)


def test_a_typo_in_a_study(tmp_path: Path, camvid: Path, refused: Callable[..., None]) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\ntrainer: {max_epoch: 3}\nmodle: {}\n")
    refused("train", "-cd", ".", "-cn", "mine", words=("modle", "model"))
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\ntrainer: {max_epoch: 3}\n")
    refused("train", "-cd", ".", "-cn", "mine", words=("trainer.max_epoch", "max_epochs"))


class _Wants:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


@pytest.fixture
def trained(camvid: Path, make_config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    train(make_config(*FAST))
    return tmp_path / "run" / "checkpoints" / "last.ckpt"


def test_bad_checkpoints(trained: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
    whole = trained.read_bytes()
    content = torch.load(trained, weights_only=True)

    trained.write_bytes(whole[: len(whole) // 2])
    refused("train", f"resume={trained}", words=("last.ckpt cannot be read", "truncated"))

    with trained.open("wb") as file:
        pickle.dump(_Wants(), file)
    refused("train", f"resume={trained}", words=("last.ckpt cannot be read", "more than weights"))

    torch.save({"fc.weight": torch.zeros(2, 2)}, trained)
    refused("train", f"resume={trained}", words=("last.ckpt cannot be used", "fc.weight"))

    torch.save({k: v for k, v in content.items() if k != "optimizer_states"}, trained)
    refused("train", f"resume={trained}", words=("no state of training", "checkpoint="))

    trained.write_bytes(whole)
    refused("train", f"resume={trained}", "data=shapes", words=("knows the 11 classes of camvid", "shapes"))
    refused("train", f"resume={trained}", "trainer.max_epochs=2", words=("take 2 steps", "now 4", "checkpoint="))
    refused("train", f"resume={trained}", "model.neck.width=16", words=("last.ckpt", "have another shape"))
    refused("train", f"resume={trained}", "run_dir=other", words=("resumed in its own folder", "run_dir"))

    moved = tmp_path / "moved.ckpt"
    shutil.copy(trained, moved)
    refused("train", "resume=moved.ckpt", words=("is not in the folder checkpoints/ of a run", "checkpoint="))
    other = [*FAST, "model.backbone.name=test_convnext", "checkpoint=moved.ckpt"]
    refused("train", *other, words=("holds no weight of this backbone", "model.backbone"))
    refused("evaluate", "checkpoint=moved.ckpt", "data=shapes", words=("knows the 11 classes of camvid",))


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Let no file grow beyond 100 kB: as on a full disk, writing fails half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file's size is Linux's")
def test_a_full_disk(command: Command, camvid: Path, small_disk: None, tmp_path: Path) -> None:
    done = command("train", *FAST)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert ".ckpt cannot be written (File too large): check permissions and free space" in line
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


def test_weights_that_cannot_be_fetched(
    refused: Callable[..., None], camvid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read from the environment when it is imported
    kept = [a for a in FAST if not a.startswith("model.backbone.")]
    words = (
        "pretrained weights of resnet18 are not in the cache, and HF_HUB_OFFLINE is set",
        "model.backbone.pretrained=false",
    )
    refused("train", *kept, "model/backbone=resnet18", words=words, HF_HUB_OFFLINE="1")
