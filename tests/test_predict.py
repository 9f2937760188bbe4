"""Labelling images: files of every kind in, pictures out; broken ones named, done ones left alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from fastfcn_pl import Predictor
from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.io import rle
from fastfcn_pl.data.io.label_ids import dataset_ids
from fastfcn_pl.tools.predict import prediction, video
from fastfcn_pl.tools.train import train
from tests.conftest import TINY, composed
from tests.fakes.ade20k import write_ade20k
from tests.fakes.folder import photograph
from tests.fakes.video import write_video

pytestmark = pytest.mark.slow
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has seen two steps of ADE20K's layout, whose ids begin at 1."""
    home = tmp_path_factory.mktemp("trained")
    root = write_ade20k(home / "ade", train=4, val=2)
    keys = ["data=ade20k", f"data.root={root}", "data.batch_size=2", "data.num_workers=0", "trainer.max_steps=2"]
    crop = ["data.augmentation.base_size=64", "data.augmentation.crop_size=48", "callbacks.cost.repeats=0"]
    train(composed(*TINY, *keys, *crop, f"run_dir={home}/run"))
    return home / "run" / "checkpoints" / "last.ckpt"


def _write_images(folder: Path) -> list[str]:
    """Write images as people have them; return their names without the extension."""
    (folder / "deep").mkdir(parents=True)
    image = Image.fromarray(photograph(1)[0])
    image.save(folder / "rgb.png")
    image.save(folder / "deep" / "photo.JPG", "JPEG")
    image.convert("L").save(folder / "grey.webp")
    image.convert("CMYK").save(folder / "press.tif")
    image.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(folder / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    (folder / "notes.txt").write_text("not an image, and no one says it is")
    return ["rgb", "deep/photo", "grey", "press", "alpha", "sixteen", "turned"]


def test_a_folder_of_mixed_images(checkpoint: Path, command: Command, tmp_path: Path) -> None:
    names = _write_images(tmp_path / "in")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no")
    (tmp_path / "in" / "torn.png").write_bytes((tmp_path / "in" / "rgb.png").read_bytes()[:300])
    arguments = [f"checkpoint={checkpoint}", "input=in", "output=out"]
    before = set(tmp_path.iterdir())
    done = command("predict", *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: 2 of 9 images were not labelled: in/broken.jpg cannot be read as an image")
    assert "in/torn.png cannot be read" in line
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out"}
    for kind in ("labels", "colors", "overlays"):
        assert sorted(
            str(p.relative_to(tmp_path / "out" / kind)) for p in (tmp_path / "out" / kind).rglob("*.png")
        ) == (sorted(f"{name}.png" for name in names))

    # what they hold
    predictor = Predictor(checkpoint)
    height, width = np.asarray(Image.open(tmp_path / "in" / "rgb.png")).shape[:2]
    indices = predictor(tmp_path / "in" / "rgb.png")
    assert indices.shape == (height, width)
    stored = np.asarray(Image.open(tmp_path / "out" / "labels" / "rgb.png"))
    assert np.array_equal(stored, indices + 1)  # ADE20K's own ids
    palette = np.array(predictor.spec.palette)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "colors" / "rgb.png")), palette[indices])
    assert Image.open(tmp_path / "out" / "labels" / "turned.png").size == (height, width)
    same = np.asarray(Image.open(tmp_path / "out" / "labels" / "sixteen.png"))
    assert np.array_equal(same, np.asarray(Image.open(tmp_path / "out" / "labels" / "grey.png")))

    # a second run does what is missing
    (tmp_path / "out" / "colors" / "grey.png").unlink()
    (tmp_path / "in" / "broken.jpg").unlink()
    (tmp_path / "in" / "torn.png").unlink()
    kept = (tmp_path / "out" / "labels" / "rgb.png").stat().st_mtime_ns
    done = command("predict", *arguments)
    assert done.returncode == 0, done.stderr
    assert "6 images are done already" in done.stdout
    assert "1 images labelled in out" in done.stdout
    assert (tmp_path / "out" / "labels" / "rgb.png").stat().st_mtime_ns == kept


def test_the_network_that_predicts_labels_as_the_trained_one_does(checkpoint: Path) -> None:
    image = photograph(1)[0]
    predictor = Predictor(checkpoint, "cpu")
    x = predictor.module.normalize(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])
    expected = predictor.module.protocol(predictor.module.model, x, image.shape[:2]).labels()[0].numpy()
    assert (predictor(image) == expected).mean() >= 0.999
    assert (Predictor(checkpoint, "cpu", "bf16-mixed")(image) == expected).mean() >= 0.9
    with pytest.raises(UserError, match=r"precision=bf16: no such option; did you mean bf16-mixed\?"):
        Predictor(checkpoint, "cpu", "bf16")


def test_probabilities_and_segments(checkpoint: Path, command: Command, tmp_path: Path) -> None:
    Image.fromarray(photograph(1)[0]).save(tmp_path / "photo.png")
    keys = ["input=photo.png", "output=out", "save=[labels,segments,probabilities]"]
    done = command("predict", f"checkpoint={checkpoint}", *keys)
    assert done.returncode == 0, done.stderr
    predictor = Predictor(checkpoint)
    labels = predictor(tmp_path / "photo.png")
    stored = np.load(tmp_path / "out" / "probabilities" / "photo.npy")
    assert (stored.dtype, stored.shape) == (np.float16, (150, *labels.shape))
    exact = predictor.scores(tmp_path / "photo.png").scores().softmax(1)[0].numpy()
    assert np.abs(stored - exact).max() < 1e-3
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "labels" / "photo.png")), labels + 1)
    segments = json.loads((tmp_path / "out" / "segments" / "photo.json").read_text())
    assert [s["category"] for s in segments] == [predictor.spec.classes[s["category_id"] - 1] for s in segments]
    painted = np.zeros_like(labels)
    for segment in segments:
        mask = rle.decode(segment["segmentation"]["size"], segment["segmentation"]["counts"])
        assert mask.sum() == segment["area"]
        painted[mask] = segment["category_id"]
    assert np.array_equal(painted, labels + 1)


def test_videos_become_videos(checkpoint: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    frames = [photograph(i, (48, 64))[0] for i in range(4)]
    write_video(tmp_path / "in" / "drive.mp4", frames, sound=True)
    (tmp_path / "in" / "torn.mp4").write_bytes((tmp_path / "in" / "drive.mp4").read_bytes()[:900])
    Image.fromarray(frames[0]).save(tmp_path / "in" / "photo.png")
    done = command("predict", f"checkpoint={checkpoint}", "input=in", "output=out", "frames=3")
    assert done.returncode == 1
    assert "error: 1 of 3 images were not labelled: input=in/torn.mp4 cannot be opened as a video" in done.stderr
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == [
        *(f"{kind}/{name}" for kind in ("colors", "labels", "overlays") for name in _names(kind)),
    ]
    with av.open(str(tmp_path / "out" / "labels" / "drive.mkv")) as stored:
        ids = [frame.to_ndarray(format="gray") for frame in stored.decode(video=0)]
    assert len(ids) == 3
    with video.reading(str(tmp_path / "in" / "drive.mp4")) as reader:
        first = next(picture for picture, _ in reader.frames())
    assert np.array_equal(ids[0], Predictor(checkpoint)(first) + 1)
    with av.open(str(tmp_path / "out" / "overlays" / "drive.mp4")) as stored:
        assert (stored.streams.video[0].height, stored.streams.video[0].width) == (48 + prediction.VIDEO_LEGEND, 64)
        assert len(stored.streams.audio) == 1
    refused = command("predict", f"checkpoint={checkpoint}", "input=in", "output=out", "save=[segments]")
    assert "save=segments: not available for the video in/drive.mp4" in refused.stderr


def _names(kind: str) -> list[str]:
    return [f"drive.{'mkv' if kind == 'labels' else 'mp4'}", "photo.png"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["input=nothing/*.png"], "input=nothing/*.png: no image found"),
        (
            ["save=[pictures]"],
            "save=pictures: no such picture; choose from colors, labels, overlays, probabilities, segments",
        ),
        (["checkpoint=nothing.ckpt"], "checkpoint=nothing.ckpt: no such file"),
        (["output=photo.png/out"], "photo.png/out/labels/photo.png cannot be written"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], line: str, checkpoint: Path, command: Command, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    given = {"checkpoint": str(checkpoint), "input": "photo.png", "output": "out"}
    given |= dict(argument.split("=") for argument in arguments)
    done = command("predict", *(f"{key}={value}" for key, value in given.items()))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert line in done.stderr
    assert not (tmp_path / "out").exists()


def test_own_ids_are_the_lowest_of_several() -> None:
    spec = DatasetSpec("x", ("a", "b"), ((0, 0, 0), (1, 1, 1)), {0: IGNORE, 9: 0, 4: 0, 70: 1})
    assert dataset_ids(spec).tolist() == [4, 70]
    assert dataset_ids(spec).dtype == np.uint8
    wide = DatasetSpec("x", ("a",), ((0, 0, 0),), {1000: 0})
    assert dataset_ids(wide).dtype == np.uint16


def test_two_images_of_one_name_are_refused(checkpoint: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.bmp"):
        Image.new("RGB", (40, 30)).save(tmp_path / "in" / name)
    done = command("predict", f"checkpoint={checkpoint}", "input=in", "output=out")
    assert "in/a.bmp and in/a.png would both be written as out/labels/a.png: rename one" in done.stderr
