"""An offline run with all features, read back from the file that `wandb sync` uploads."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fastfcn_pl.training.callbacks
from fastfcn_pl.config import build
from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.data.dataset import SegmentationDataset
from fastfcn_pl.engine import checkpoint
from fastfcn_pl.evaluation.visualize import comparison
from fastfcn_pl.training.module import SegmentationModule
from tests.conftest import TINY
from tests.fakes.camvid import write_camvid
from tests.support import in_process, wandb_file

pytestmark = pytest.mark.slow
KEY = "local-" + "5ec4e7" * 6 + "5ec4"
LOGIN = "hunter2"
OPTIONS = [*TINY[:-1], "data=camvid", "data.batch_size=2", "data.num_workers=0", "data.augmentation.crop_size=48"]
OPTIONS += [
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "callbacks.samples.count=2",
    "callbacks.images.worst=2",
]
OPTIONS += ["callbacks.files.code=true", "callbacks.files.checkpoint=true", "callbacks.cost.repeats=1"]
OPTIONS += [
    "diagnostics=all",
    "run_dir=run",
    "logger=all",
    "logger.wandb.mode=offline",
    "logger.wandb.tags=[mine]",
    "seed=3",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run, which was started in the home folder of its user."""
    home = tmp_path_factory.mktemp("home")
    root = write_camvid(home / "CamVid", train=5, val=3)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "WANDB_API_KEY": KEY}
    question = f"question='What says https://me:{LOGIN}@example.org?'"
    command = ["fastfcn_pl.train", *OPTIONS, f"data.root={root}", question]
    done = in_process.run(command, home, environment)
    assert done.returncode == 0, done.stderr
    (home / "stdout.txt").write_text(done.stdout + done.stderr)
    return home / "run"


def _file(run: Path, path: str) -> Path:
    return next(run.glob("wandb/offline-run-*/files")) / path


def _table(run: Path, path: str) -> dict[str, Any]:
    return json.loads(_file(run, path).read_text())


def _validated(module: SegmentationModule) -> SegmentationDataset:
    """Return the validation samples of the run."""
    root = module.hparams["config"]["data"]["root"]
    return build.datamodule(build.compose(["data=camvid", f"data.root={root}"])).dataset("val")


def _documented() -> list[re.Pattern[str]]:
    """Return the keys in the docstring of the callbacks, as patterns."""
    text = fastfcn_pl.training.callbacks.__doc__ or ""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    keys = [key for row in rows for key in re.findall("`([^`]+)`", row)]
    return [re.compile(re.sub(r"<[^>]+>", "[^./]+", key.replace(".", r"\."))) for key in keys]


def test_the_logged_keys_are_the_documented_ones(run: Path) -> None:
    kinds = r"\.(_type|path|size|sha256|format|width|height|masks|n?rows|n?cols|log_mode|.*artifact_path|count|captions"
    logged = {re.sub(kinds + r"|filenames|all_masks)(\..*)?$", "", key) for key in wandb_file.history(run)}
    logged = {key.removeprefix("Custom Chart Tables/").removesuffix("_table") for key in logged}
    ours = {key for key in logged if not key.startswith("_")} - {"epoch", "trainer/global_step"}
    patterns = _documented()
    assert len(ours) > 30
    assert not [key for key in ours if not any(pattern.fullmatch(key) for pattern in patterns)]
    missing = {pattern.pattern for pattern in patterns if not any(map(pattern.fullmatch, ours))}
    of_approximations = {
        f"{stage}/approximation_{score}" for stage in ("val", "final") for score in ("error", "cosine")
    }
    assert missing == {"train/gpu_memory_gib", *of_approximations}, "there is no GPU, and no model=approximation"


def test_numbers_are_logged_at_each_step_and_validation(run: Path) -> None:
    logged = wandb_file.history(run)
    for key in (
        "train/loss",
        "train/cross_entropy",
        "train/aux_cross_entropy",
        "train/grad_norm",
        "lr-SGD/head",
        "lr-SGD/backbone",
    ):
        assert len(logged[key]) == 4, key
        assert all(isinstance(value, float) for value in logged[key]), key
    assert min(logged["train/grad_norm"]) > 0
    assert all(0 <= value <= 1 for value in logged["train/data_wait"])
    for key in ("val/mIoU", "val/pixel_accuracy", "val/mean_accuracy", "val/IoU/sky", "val/IoU/sign symbol"):
        assert len(logged[key]) == 2, key
    axis = [item for item in wandb_file.of_kind(run, "metric") if item.glob_name == "*"]
    assert axis[0].step_metric == "trainer/global_step"
    assert {2, 4} <= set(logged["trainer/global_step"])


def test_masks_decode_to_labels_prediction_and_errors(run: Path) -> None:
    """The prediction is that of the last weights; the truth is read from the data set's files."""
    logged = wandb_file.history(run)
    module = checkpoint.load(run / "checkpoints" / "last.ckpt")
    samples = _validated(module)
    for position, index in enumerate((0, 2)):
        key, sample = f"val/samples/{position}", samples[0, index]
        assert logged[f"{key}._type"] == ["image-file"] * 2
        assert len(set(logged[f"{key}.sha256"])) == 1, "the same image each time"
        assert len(set(logged[f"{key}.masks.truth.sha256"])) == 1
        picture = np.asarray(Image.open(_file(run, logged[f"{key}.path"][-1])))
        masks = {
            name: np.asarray(Image.open(_file(run, logged[f"{key}.masks.{name}.path"][-1])))
            for name in ("truth", "prediction", "error")
        }
        target = sample["target"]
        with torch.inference_mode():
            batch = {"image": sample["image"][None], "target": target[None]}
            prediction = module.predict(batch).labels()[0].numpy()
        file = io.BytesIO()
        Image.fromarray(sample["image"].permute(1, 2, 0).numpy()).save(file, "JPEG")
        assert np.array_equal(picture, np.asarray(Image.open(file)))
        assert (masks["truth"] == target.numpy()).all()
        assert (masks["prediction"] == prediction).all()
        assert IGNORE in masks["truth"]
        wrong = np.where(target == IGNORE, IGNORE, target.numpy() != prediction)
        assert (masks["error"] == wrong).all()
    labels = wandb_file.added_config(run)["_wandb"]["mask/class_labels"]["val/samples/0_wandb_delimeter_truth"]
    assert labels["value"]["0"] == "sky"
    assert labels["value"]["255"] == "ignored"


def test_tensorboard_has_the_same_numbers_and_pictures(run: Path) -> None:
    logged = wandb_file.history(run)
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()
    numbers = {key for key in logged if re.match("(train|val|final)/(?!.*[.])|lr-", key) and key[0] != "_"}
    assert numbers == {tag for tag in events.Tags()["scalars"] if "/" in tag}
    for key in numbers:
        there = [event.value for event in events.Scalars(key)]
        assert there == pytest.approx([float(value) for value in logged[key]], nan_ok=True), key
    pictures = {"val/samples/0": 2, "val/samples/1": 2, "val/confusion": 2, "final/confusion": 1, "final/worst": 1}
    assert {tag: len(events.Images(tag)) for tag in events.Tags()["images"]} == pictures

    def decoded(path: str) -> np.ndarray:
        return np.asarray(Image.open(_file(run, path)))

    sample = "val/samples/0"
    truth, prediction = (decoded(logged[f"{sample}.masks.{name}.path"][-1]) for name in ("truth", "prediction"))
    module = checkpoint.load(run / "checkpoints" / "last.ckpt")
    image = _validated(module)[0, 0]["image"].permute(1, 2, 0).numpy()
    expected = {sample: comparison(image, truth, prediction, module.spec)}
    expected["final/confusion"] = decoded(logged["final/confusion.path"][-1])
    for tag, picture in expected.items():
        there = np.asarray(Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string)))
        assert np.array_equal(there, picture), tag


def test_classes_and_confusion_are_tables(run: Path) -> None:
    logged, results = wandb_file.history(run), json.loads((run / "results.json").read_text())
    assert logged["val/classes._type"] == ["table-file"] * 2
    table = _table(run, logged["final/classes.path"][-1])
    assert table["columns"] == ["class", "IoU", "accuracy", "Dice", "share"]
    assert {row[0]: row[1] for row in table["data"]} == results["IoU"]
    chart = _table(run, logged["Custom Chart Tables/final/confusion_chart_table.path"][-1])
    assert chart["columns"] == ["Actual", "Predicted", "nPredictions"]
    found = {name: share for name, other, share in chart["data"] if name == other}
    for name, share in found.items():
        assert share == pytest.approx(100 * results["accuracy"][name], abs=0.01)
    rows = {name: sum(share for true, _, share in chart["data"] if true == name) for name, *_ in chart["data"]}
    assert all(total == pytest.approx(100, abs=0.6) for total in rows.values())
    chart = wandb_file.added_config(run)["_wandb"]["visualize"]["final/confusion_chart"]
    assert chart["panel_config"]["panelDefId"] == "wandb/confusion_matrix/v1"
    picture = np.asarray(Image.open(_file(run, logged["final/confusion.path"][-1])))
    assert picture.shape[0] > 400


def test_the_worst_images_are_there_with_masks(run: Path) -> None:
    logged = wandb_file.history(run)
    assert logged["final/worst._type"] == ["images/separated"]
    (captions,), (masks,), (paths,) = (logged[f"final/worst.{key}"] for key in ("captions", "all_masks", "filenames"))
    assert len(captions) == len(masks) == len(paths) == 2
    listed = (run / "images.csv").read_text().splitlines()[1:]
    for caption, line in zip(captions, listed, strict=False):
        name, score = caption.split("   mIoU ")
        assert Path(line.split(",")[0]).name == name
        assert float(score) == pytest.approx(100 * float(line.split(",")[1]), abs=0.01)
    assert set(masks[0]) == {"truth", "prediction", "error"}
    assert all(_file(run, path).is_file() for path in paths)


def test_the_summary_makes_runs_comparable(run: Path) -> None:
    summary, results = wandb_file.summary(run), json.loads((run / "results.json").read_text())
    expected = {"backbone": "test_resnet", "neck": "jpu", "head": "fcn", "aux_head": "fcn", "protocol": "native"}
    expected |= {"data": "camvid", "train_split": "train", "train_images": 5, "val_images": 3, "seed": 3}
    expected |= {"world_size": 1, "effective_batch_size": 2}
    expected |= {key: results[key] for key in ("commit", "parameters", "gmacs")}
    assert {key: summary.get(key) for key in expected} == expected
    assert summary["latency_ms"] > 0
    assert re.fullmatch("[0-9a-f]{16}", summary["data_fingerprint"])
    assert summary["best_mIoU"] == pytest.approx(max(wandb_file.history(run)["val/mIoU"]))
    assert summary["best_mIoU"] == pytest.approx(results["mIoU"])
    assert summary["best_step"] == results["checkpoint_step"]
    assert summary["final/mIoU"] == pytest.approx(results["mIoU"])


def test_it_starts_with_configuration_tags_and_job_type(run: Path) -> None:
    started = wandb_file.of_kind(run, "run")[0]
    assert {"mine", "neck=jpu", "data=camvid", "augmentation=camvid", "optimizer=sgd"} <= set(started.tags)
    assert not [tag for tag in started.tags if len(tag) > 64 or tag.startswith(("logger", "callbacks", "se="))]
    assert (started.job_type, started.run_group) == ("train", "")
    config = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert config["model"]["neck"]["width"] == 8
    assert config["seed"] == 3
    stored = yaml.safe_load(_file(run, "resolved_config.yaml").read_text())
    assert stored["model"] == config["model"]
    assert "resolved_config.yaml" in wandb_file.files(run)
    assert wandb_file.exit_code(run) == 0


def test_code_and_the_best_checkpoint_are_artifacts(run: Path) -> None:
    artifacts = {item.type: item for item in wandb_file.of_kind(run, "artifact")}
    step = json.loads((run / "results.json").read_text())["checkpoint_step"]
    assert {"best", f"step-{step}"} <= set(artifacts["model"].aliases)
    (weights,) = artifacts["model"].manifest.contents
    assert Path(weights.local_path).is_relative_to(run / "wandb"), "nothing of it waits in the user's home"
    restored = checkpoint.load(weights.local_path).state_dict()
    original = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(restored[name], tensor) for name, tensor in original.items())
    assert "training/module.py" in {item.path for item in artifacts["code"].manifest.contents}


def test_nothing_secret_and_no_place_of_this_machine_is_logged(run: Path) -> None:
    home = str(run.parent)
    printed = (run.parent / "stdout.txt").read_text()
    assert KEY not in printed
    for path in (path for path in (run / "wandb").rglob("*") if path.is_file() and path.suffix != ".ckpt"):
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert LOGIN.encode() not in content, path
    for record in wandb_file.records(run):
        if not record.HasField("artifact"):  # where its files wait for an upload, which is not uploaded
            assert home not in str(record)
    config = wandb_file.config(run)
    assert config["question"] == "What says https://***@example.org?"
    assert config["data"]["root"] == "./CamVid"
    assert config["run_dir"] == "run"
    assert not wandb_file.of_kind(run, "environment"), "it would hold the command line and its paths"


@pytest.mark.exhaustive
def test_jobs_of_a_sweep_are_a_group_whatever_their_ranks_and_a_study_names_its_own(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    small = [*TINY[:-1], "data.train_images=4", "data.val_images=2", "data.size=32", "data.batch_size=2"]
    small += ["data.num_workers=0", "trainer.max_epochs=1", "trainer.strategy=ddp", "logger.wandb.mode=offline"]
    small += ["callbacks.cost.repeats=0", "callbacks.samples.count=0", "callbacks.images.worst=0"]
    swept = command("train", "-m", *small, "trainer.devices=1,2", "hydra.sweep.dir=sweeps/ranks", fresh=True)
    assert swept.returncode == 0, swept.stderr
    for job, ranks in enumerate((1, 2)):
        (started,) = wandb_file.of_kind(tmp_path / "sweeps" / "ranks" / str(job), "run")[:1]
        assert (started.run_group, started.job_type) == ("sweeps/ranks", "train")
        assert wandb_file.summary(tmp_path / "sweeps" / "ranks" / str(job))["world_size"] == ranks
    study = command("train", "-cn", "quickstart", *small, "hydra.run.dir=alone")
    assert study.returncode == 0, study.stderr
    started = wandb_file.of_kind(tmp_path / "alone", "run")[0]
    assert (started.run_group, started.job_type) == ("quickstart", "train")
