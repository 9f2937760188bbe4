"""Images with more than three bands, from doctor through training to exported files."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import fastfcn_pl
from fastfcn_pl import Predictor
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import checkpoint
from fastfcn_pl.tools.export import formats
from fastfcn_pl.tools.export.command import export
from fastfcn_pl.tools.predict.command import predict
from fastfcn_pl.tools.train import train
from tests.conftest import TINY, composed
from tests.fakes.bands import scene, write_bands
from tests.support.grids import sample

Command = Callable[..., subprocess.CompletedProcess[str]]
MEAN, STD = [900.0, 1100, 1000, 2300, 1540], [60.0, 60, 60, 1150, 760]
DATA = ["data=folder", "data/augmentation=flip", "data.name=fields", "data.classes=[ground,water]"]
DATA += ["data.bands=[0,1,2,3,4]", "data.batch_size=4", "data.num_workers=0"]
NORMALISED = [f"data.mean={MEAN}", f"data.std={STD}", "data.display_bands=[2,1,0]"]
QUICK = [*TINY, "optimizer=adamw", "optimizer.lr=5.0e-3", "trainer.max_epochs=3", "callbacks.cost.repeats=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bands(tmp_path_factory.mktemp("bands"), train=8, val=3)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    score = train(composed(*QUICK, *DATA, *NORMALISED, f"data.root={data}", f"run_dir={folder}"))
    assert score > 0.8  # three of the five bands are noise
    return folder / "checkpoints" / "best.ckpt"


@pytest.mark.slow
def test_doctor_prints_mean_and_std_to_paste(data: Path, command: Command, tmp_path: Path) -> None:
    done = command("doctor", *DATA, f"data.root={data}", "num_workers=0", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.search(r"^of the bands of train, .*:\n(mean: .*\nstd: .*\n)", done.stdout, re.MULTILINE)
    assert lines is not None
    printed, images = yaml.safe_load(lines[1]), np.stack([scene(sum(b"train") * 1000 + i)[0] for i in range(8)])
    assert printed["mean"] == pytest.approx(images.mean((0, 1, 2)).tolist(), rel=1e-5)
    assert printed["std"] == pytest.approx(images.std((0, 1, 2)).tolist(), rel=1e-5)
    assert Image.open(tmp_path / "samples.png").width == 720


@pytest.mark.slow
def test_a_checkpoint_remembers_its_bands(trained: Path, data: Path, command: Command, tmp_path: Path) -> None:
    module = checkpoint.load(trained)
    assert module.spec.bands is not None
    assert (module.mean.flatten().tolist(), module.std.flatten().tolist()) == (MEAN, STD)
    assert module.model.backbone.net.conv1[0].weight.shape[1] == 5  # type: ignore[union-attr, index]
    results = json.loads((trained.parents[1] / "results.json").read_text())
    done = command("evaluate", f"checkpoint={trained}", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "results.json").read_text())["IoU"] == results["IoU"]
    assert Image.open(next((tmp_path / "overlays").glob("*.png"))).mode == "RGB"
    done = command("benchmark", f"checkpoint={trained}", "size=[64,64]", "memory=false", "repeats=1", "warm_up=0")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_predicted_files(trained: Path, data: Path, command: Command, tmp_path: Path) -> None:
    done = command("predict", f"checkpoint={trained}", f"input={data}/images/val", "output=out", "device=cpu")
    assert done.returncode == 0, done.stderr
    predictor = Predictor(trained, "cpu")
    for path in sorted((data / "images" / "val").glob("*.tif")):
        image, ids = scene(sum(b"val") * 1000 + int(path.stem))
        labels = np.asarray(Image.open(tmp_path / "out" / "labels" / f"{path.stem}.png"))
        assert np.array_equal(labels, predictor(image))
        assert np.array_equal(labels, predictor(str(path)))
        assert (labels == ids).mean() > 0.9
        assert Image.open(tmp_path / "out" / "overlays" / f"{path.stem}.png").width == image.shape[1]


@pytest.mark.slow
@pytest.mark.parametrize("form", sample(formats.SUFFIXES, "onnx"))
def test_exported_files_label_as_the_checkpoint(form: str, trained: Path, data: Path, tmp_path: Path) -> None:
    if form in ("openvino", "executorch"):
        pytest.importorskip(form)
    file, predictor = tmp_path / f"network{formats.SUFFIXES[form]}", Predictor(trained, "cpu")
    export(composed(f"checkpoint={trained}", f"format={form}", f"output={file}", "count=2", name="export"))
    exported = Predictor(file, "cpu", trust=True)
    assert exported.spec == predictor.spec
    for path in (data / "images" / "val").glob("*.tif"):
        assert np.array_equal(exported(path), predictor(path))


@pytest.mark.exhaustive
def test_a_file_of_8_bits_is_calibrated_on_bands(trained: Path, data: Path, tmp_path: Path) -> None:
    file, predictor = tmp_path / "network.onnx", Predictor(trained, "cpu")
    export(composed(f"checkpoint={trained}", "int8=true", f"output={file}", name="export"))
    exported = Predictor(file, "cpu")
    for path in (data / "images" / "val").glob("*.tif"):
        assert (exported(path) == predictor(path)).mean() > 0.99


@pytest.mark.slow
def test_other_images_are_refused_in_one_line(trained: Path, data: Path, command: Command, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    done = command("predict", f"checkpoint={trained}", "input=photo.png", "output=out", "device=cpu")
    (line,) = done.stderr.strip().splitlines()
    assert "photo.png has 3 bands, so there is no band 4 (they count from 0), which data.bands=[0, 1, 2, 3, 4]" in line
    with pytest.raises(UserError, match=r"shape \(8, 8, 3\), and the network takes 5 bands: give an array"):
        Predictor(trained, "cpu")(np.zeros((8, 8, 3), np.uint8))
    done = command("evaluate", f"checkpoint={trained}", "+data.bands=[0,1,2,4,3]")
    (line,) = done.stderr.strip().splitlines()
    assert "takes images of 5 bands [0, 1, 2, 3, 4], not the images of 5 bands [0, 1, 2, 4, 3] of fields: " in line
    done = command("demo", f"checkpoint={trained}", "device=cpu")
    assert "demo is for RGB images, and checkpoint=" in done.stderr


def test_statistics_are_required(data: Path, tmp_path: Path) -> None:
    cfg = composed(*QUICK, *DATA, f"data.root={data}", f"run_dir={tmp_path}")
    with pytest.raises(UserError, match=r"^data\.bands needs data\.mean and data\.std: add .*doctor"):
        train(cfg)


@pytest.mark.slow
def test_three_bands_of_8_bits_are_those_of_a_photograph(data: Path, tmp_path: Path) -> None:
    """The same bytes as RGB, and as bands normalised alike, train the same weights bit by bit."""
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for path in (data / "images" / split).glob("*.tif"):
            pixels, _ = scene(sum(split.encode()) * 1000 + int(path.stem))
            Image.fromarray((pixels[..., 2:] // 16).astype(np.uint8)).save(
                tmp_path / "images" / split / f"{path.stem}.png"
            )
    (tmp_path / "masks").symlink_to(data / "masks")
    backbone = fastfcn_pl.create_model(num_classes=2, pretrained=False, **{"backbone.name": "test_resnet"}).backbone
    mean, std = ([float(x) for x in torch.tensor(getattr(backbone, name)) * 255] for name in ("mean", "std"))
    bands = ["data.bands=[0,1,2]", f"data.mean={mean}", f"data.std={std}"]
    states = []
    for name, keys in (("rgb", ["data.bands=null"]), ("bands", bands)):
        train(
            composed(
                *QUICK, *DATA, *keys, "trainer.max_epochs=1", f"data.root={tmp_path}", f"run_dir={tmp_path}/{name}"
            )
        )
        states.append(checkpoint.Checkpoint.read(tmp_path / name / "checkpoints" / "last.ckpt").state_dict)
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


@pytest.mark.slow
def test_modalities_are_stacked(data: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for folder in ("color", "depth"):
            (tmp_path / folder / split).mkdir(parents=True)
        for path in (data / "images" / split).glob("*.tif"):
            pixels, _ = scene(sum(split.encode()) * 1000 + int(path.stem))
            Image.fromarray((pixels[..., :3] // 16).astype(np.uint8)).save(
                tmp_path / "color" / split / f"{path.stem}.png"
            )
            Image.fromarray(pixels[..., 3]).save(tmp_path / "depth" / split / f"{path.stem}.tif")
    keys = [f"data.root={tmp_path}", "data.bands=[[0,1,2],[0]]", "data.mean=[56,68,62,2300]", "data.std=[4,4,4,1150]"]
    keys += [
        f"data.splits.{split}={{images:[color/{split},depth/{split}],masks:{data}/masks/{split}}}"
        for split in ("train", "val")
    ]
    cfg = composed(*QUICK, *DATA, *keys, "trainer.max_epochs=1", f"run_dir={tmp_path}/run")
    train(cfg)
    predictor = Predictor(tmp_path / "run" / "checkpoints" / "best.ckpt", "cpu")
    pixels, _ = scene(sum(b"val") * 1000)
    keys = [
        f"checkpoint={tmp_path}/run/checkpoints/best.ckpt",
        f"input={tmp_path}/color/val",
        f"modalities=[{tmp_path}/depth/val]",
    ]
    predict(composed(*keys, f"output={tmp_path}/out", "device=cpu", "save=[labels,overlays]", name="predict"))
    array = np.concatenate([pixels[..., :3] // 16, pixels[..., 3:4]], axis=2)
    labels = np.asarray(Image.open(tmp_path / "out" / "labels" / "000.png"))
    assert np.array_equal(labels, predictor(array))
    assert np.array_equal(labels, predictor([tmp_path / "color/val/000.png", tmp_path / "depth/val/000.tif"]))
