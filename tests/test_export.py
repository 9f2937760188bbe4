"""Exported networks return the same labels at any size, and a rejected export leaves no file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastfcn_pl import Predictor
from fastfcn_pl.data.datasets.shapes import ShapesSource
from fastfcn_pl.engine import checkpoint
from fastfcn_pl.tools.export import formats
from fastfcn_pl.tools.train import train
from tests.conftest import TINY, composed
from tests.support.grids import sample

pytestmark = pytest.mark.slow
Command = Callable[..., subprocess.CompletedProcess[str]]
SIZES = [(1, 96, 96), (1, 65, 97), (3, 64, 80), (1, 131, 77), (2, 33, 200)]
LEARNS = ["model.neck.width=32", "model.head.channels=32", "model.aux_head.channels=16", "optimizer=adamw"]
LEARNS += ["optimizer.lr=6.0e-3", "optimizer.head_lr_ratio=1", "data.train_images=320", "data.size=96"]
LEARNS += ["data.val_images=6", "data.batch_size=8", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=3"]
# Else it predicts little but background after so few steps.
LEARNS += ["loss.terms.cross_entropy.loss.class_weights=[0.1,1,1,1,1,1,1,1]"]


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    keys = [*TINY[:2], "trainer.accelerator=cpu", "logger=none", "callbacks.cost.repeats=0", "data.num_workers=0"]
    train(composed(*keys, f"model/head={request.param}", *LEARNS, f"run_dir={folder}"))
    return folder / "checkpoints" / "best.ckpt"


@pytest.mark.parametrize("form", sample(formats.SUFFIXES, "onnx", "torchscript", "openvino", "executorch"))
@pytest.mark.parametrize(
    "trained",
    sample(["encnet", "fcn", "psp", "aspp"], "encnet"),
    indirect=True,
)
def test_a_file_labels_as_the_checkpoint_at_any_size(
    form: str, trained: Path, command: Command, tmp_path: Path
) -> None:
    if form in ("openvino", "executorch"):
        pytest.importorskip(form)
    module, seen = checkpoint.load(trained), set()
    drawn = torch.stack([_picture(i, 96) for i in range(18)]).view(3, 2, 3, 3, 96, 96)
    pictures = drawn.permute(0, 3, 1, 4, 2, 5).reshape(3, 3, 192, 288)
    output = tmp_path / f"net{formats.SUFFIXES[form]}"
    done = command("export", f"checkpoint={trained}", f"format={form}", f"output={output}")
    assert done.returncode == 0, done.stderr
    assert "on 6 images" in done.stdout
    file = formats.load(output, trust=True)
    assert file.spec == module.spec
    assert file.metadata["check"]["largest_difference"] < 1e-4
    for batch, height, width in SIZES:
        images = pictures[:batch, :, :height, :width]
        with torch.no_grad():
            x = module.normalize(images)
            expected = module.protocol(module.model, x, (height, width)).labels()
        labels = file.labels(images)
        assert (labels == expected).double().mean() >= 0.999, (height, width)
        seen |= set(labels.unique().tolist())
    assert len(seen) >= 5


def _picture(index: int, size: int) -> torch.Tensor:
    return torch.from_numpy(np.array(ShapesSource(18, size, 7).read(index)[0])).permute(2, 0, 1)


@pytest.mark.parametrize("trained", ["encnet"], indirect=True)
def test_predict_takes_an_exported_file(trained: Path, command: Command, tmp_path: Path) -> None:
    Image.fromarray(_picture(0, 120).permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    for gives in ("labels", "logits"):
        done = command("export", f"checkpoint={trained}", f"gives={gives}", f"output={gives}.onnx", "images=photo.png")
        assert done.returncode == 0, done.stderr
    shown = Predictor(trained)(tmp_path / "photo.png")
    assert (Predictor(tmp_path / "labels.onnx")(tmp_path / "photo.png") == shown).mean() >= 0.999
    done = command("predict", "checkpoint=logits.onnx", "input=photo.png", "output=out", "save=[labels,probabilities]")
    assert done.returncode == 0, done.stderr
    assert (np.asarray(Image.open(tmp_path / "out" / "labels" / "photo.png")) == shown).mean() >= 0.999
    refused = command("predict", "checkpoint=labels.onnx", "input=photo.png", "output=no", "save=[probabilities]")
    assert "export it with gives=logits" in refused.stderr

    # mistakes, one line each
    for arguments, line in {
        ("format=onx",): "format=onx: no such option; did you mean onnx?",
        ("output=labels.onnx",): "labels.onnx exists already: set overwrite=true",
        ("output=net.pt",): "output=net.pt: a file of format=onnx ends in .onnx",
        ("int8=true", "format=torchscript"): "int8=true is for format=onnx",
        ("least_equal=1.1", "output=far.onnx"): "less than least_equal=1.1; the file was removed",
    }.items():
        done = command("export", f"checkpoint={trained}", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert line in done.stderr
    (tmp_path / "torn.onnx").write_bytes((tmp_path / "labels.onnx").read_bytes()[:5000])
    done = command("predict", "checkpoint=torn.onnx", "input=photo.png", "output=no")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "torn.onnx cannot be read" in done.stderr
    assert not [path.name for path in tmp_path.iterdir() if "far" in path.name or path.name.startswith(".")]

    # 8 bits
    done = command("export", f"checkpoint={trained}", "int8=true", "output=small.onnx", "quantization.most_lost=0.1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "small.onnx").stat().st_size < 0.6 * (tmp_path / "labels.onnx").stat().st_size
    stated = formats.load(tmp_path / "small.onnx").metadata["int8"]
    results = json.loads((trained.parents[1] / "results.json").read_text())
    assert stated["mIoU_float"] == pytest.approx(results["mIoU"], abs=1e-3)
    assert f"int8: mIoU {100 * stated['mIoU']:.2f} on shapes val" in done.stdout
    (tmp_path / "small.onnx").unlink()
    refused = command("export", f"checkpoint={trained}", "int8=true", "output=small.onnx", "quantization.most_lost=-1")
    assert "more than quantization.most_lost" in refused.stderr
    assert not [path.name for path in tmp_path.iterdir() if "small" in path.name]
