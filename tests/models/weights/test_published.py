"""Published weights: our code computes the same with them as their own."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.engine import checkpoint
from fastfcn_pl.evaluation.protocols import encoding, logits
from fastfcn_pl.losses.cross_entropy import CrossEntropy
from fastfcn_pl.losses.se import SELoss
from fastfcn_pl.losses.weighted_sum import Term, WeightedSum
from fastfcn_pl.models.weights import official
from fastfcn_pl.models.weights.rename import rename
from fastfcn_pl.ops.interpolate import resize
from tests.fakes.folder import write_folder
from tests.fakes.published import state_dict
from tests.support.grids import sample

pytestmark = pytest.mark.slow
CASES = [
    "official_encnet_jpu_resnet50",
    "official_encnet_dilated_resnet50",
    "official_psp_jpu_resnet50",
    "mmseg_psp_jpu_resnet50",
]


def _case(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return a case, and the state dict that its outputs were computed with."""
    spec = importlib.util.spec_from_file_location("weights", shared / "parity" / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    case = torch.load(shared / "parity" / f"{name}.pt", weights_only=True)
    return case, weights.fill(case["shapes"])


@pytest.mark.parametrize("name", CASES)
def test_outputs_loss_and_gradients_are_the_published_ones(name: str, shared: Path, tmp_path: Path) -> None:
    case, state = _case(shared, name)
    torch.save({"state_dict": state, "epoch": 79, "best_pred": np.float64(0.51)}, tmp_path / "model.pth.tar")
    module = checkpoint.load(tmp_path / "model.pth.tar")
    model = module.model
    assert not module.training
    x = torch.randn(*case["input"], generator=torch.Generator().manual_seed(0))
    output = model(x, extras=True)
    for key, expected in case["outputs_every_4th_pixel"].items():
        actual = output.named()[key]
        if actual.ndim == 4:
            actual = resize(actual, x.shape[-2:], model.align_corners)[:, :, ::4, ::4]
        assert (actual - expected).abs().max() < 1e-4 * expected.std(), key
    if "loss" not in case:
        return

    weights = {"logits": 1.0, "aux_logits": case.get("aux_weight"), "se_logits": case.get("se_weight")}
    plain = CrossEntropy(class_weights=None, label_smoothing=0.0)
    terms = {
        key: Term(output=key, weight=weight, loss=SELoss() if key == "se_logits" else plain)
        for key, weight in weights.items()
        if weight
    }
    size = (x.shape[0], *x.shape[-2:])
    target = torch.randint(-1, case["num_classes"], size, generator=torch.Generator().manual_seed(1))
    loss, _ = WeightedSum(tuple(terms), terms=terms)(output, torch.where(target < 0, IGNORE, target), True)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-4)
    loss.backward()
    norms = {k: torch.tensor(v) for k, v in case["grad_norms"].items()}
    head = official.architecture(state).options["head"]
    expected_norms, _ = rename(norms, official.rules(head))
    found_norms = {k: p.grad.norm() for k, p in model.named_parameters() if p.grad is not None}
    assert expected_norms.keys() <= found_norms.keys()
    for key, norm in expected_norms.items():
        assert found_norms[key] == pytest.approx(norm.item(), rel=1e-3, abs=1e-7), key


def test_a_file_as_the_official_training_wrote_it(tmp_path: Path) -> None:
    """torch before 1.6 and numpy 1 on a GPU: no zip file, numpy's old names, CUDA storages, an optimizer's state."""
    path, parameter = tmp_path / "checkpoint.pth.tar", 140229348754824  # its id, as torch had it there
    shapes = {name: tensor.shape for name, tensor in state_dict("official", "resnet50s", "jpu fcn").items()}
    content = {
        "epoch": 80,
        "state_dict": OrderedDict((name, torch.tensor(0.25).expand(shape)) for name, shape in shapes.items()),
        "optimizer": {
            "state": {parameter: {"momentum_buffer": torch.zeros(3)}},
            "param_groups": [{"lr": 0.001, "momentum": 0.9, "nesterov": False, "params": [parameter]}],
        },
        "best_pred": np.float64(0.51),
    }
    content["state_dict"]._metadata = OrderedDict({"": {"version": 1}})
    torch.save(content, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    for now, then in (
        (b"cnumpy._core.multiarray\nscalar\n", b"cnumpy.core.multiarray\nscalar\n"),
        (b"\x89\x88\x87", b"K\x00K\x01\x87"),  # dtype("f8", 0, 1), where numpy 2 has False and True
        (b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n"),
        (b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"),
    ):
        assert now in written, now
        written = written.replace(now, then)
    path.write_bytes(written)
    module = checkpoint.load(path)
    assert not module.training
    assert all((tensor == tensor.new_tensor(0.25)).all() for tensor in module.model.state_dict().values())


@pytest.mark.parametrize(
    "name", sample([name for name in CASES if name.startswith("official")], "official_encnet_jpu_resnet50")
)
def test_the_papers_evaluation_gives_the_published_scores(name: str, shared: Path, tmp_path: Path) -> None:
    case, state = _case(shared, name)
    torch.save(state, tmp_path / "model.pth")
    model = checkpoint.load(tmp_path / "model.pth").model
    options = case["multi_scale"]
    for key, expected in options["results"].items():
        shape, flip, scales = key.split(" ", 2)  # such as "90x140 flip=True scales=[0.5, 1.0]"
        height, width = map(int, shape.split("x"))
        actual = encoding(
            model,
            torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(options["input_seed"])),
            (height, width),
            base_size=options["base_size"],
            crop_size=options["crop_size"],
            scales=json.loads(scales.removeprefix("scales=")),
            flip=flip == "flip=True",
        ).scores()
        torch.testing.assert_close(actual[:, :, ::4, ::4], expected["scores_every_4th_pixel"], rtol=1e-4, atol=0)
        assert (actual.argmax(1) == expected["argmax"]).double().mean() >= 0.9999, key


@pytest.fixture(scope="module")
def named(shared: Path) -> dict[str, torch.Tensor]:
    """Names and shapes of published weights, whose values are all the same and take no room in a file."""
    case = torch.load(shared / "parity" / "official_psp_jpu_resnet50.pt", weights_only=True)
    return {name: torch.tensor(0.25).expand(shape) for name, shape in case["shapes"].items()}


def test_convert_writes_a_checkpoint_of_ours(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, shared: Path
) -> None:
    torch.save({"state_dict": _case(shared, "official_psp_jpu_resnet50")[1]}, tmp_path / "theirs.pth.tar")
    done = command("convert", "source=theirs.pth.tar", "output=ours.ckpt")
    assert done.returncode == 0, done.stderr
    assert "FastFCN / PyTorch-Encoding: backbone resnet50s, neck jpu, head psp, aux_head fcn" in done.stdout
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        ours, theirs = (logits(checkpoint.load(tmp_path / f).model, x) for f in ("ours.ckpt", "theirs.pth.tar"))
    assert torch.equal(ours, theirs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.ckpt", "theirs.pth.tar"]


def test_convert_takes_names_from_a_data_set(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, named: dict[str, torch.Tensor]
) -> None:
    torch.save(named, tmp_path / "theirs.pth")
    done = command("convert", "source=theirs.pth", "output=ours.ckpt", "data=camvid")
    assert done.returncode == 1
    assert "classes, but data set camvid has 11" in done.stderr
    assert not (tmp_path / "ours.ckpt").exists()


def test_convert_takes_names_from_a_folders_keys_without_its_files(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, named: dict[str, torch.Tensor]
) -> None:
    torch.save(named, tmp_path / "theirs.pth")
    names = [f"thing{i}" for i in range(len(named["head.conv5.5.weight"]))]
    keys = ["data=folder", "data.root=nowhere", f"data.classes=[{','.join(names)}]", "data.name=things"]
    done = command("convert", "source=theirs.pth", "output=ours.ckpt", *keys)
    assert done.returncode == 0, done.stderr
    assert f"{len(names)} classes (things)" in done.stdout
    content = torch.load(tmp_path / "ours.ckpt", weights_only=True)["hyper_parameters"]
    assert (content["spec"]["classes"], content["config"]["data"]["classes"]) == (tuple(names), names)
    typo = command("convert", "source=theirs.pth", "output=ours.ckpt", *keys, "+data.rot=x")
    assert (typo.returncode, typo.stderr.count("\n")) == (1, 1)
    assert "data.rot: fastfcn_pl.data.datasets.folder.Folder has no such parameter; did you mean root?" in typo.stderr


@pytest.mark.slow
def test_published_weights_are_evaluated_as_they_are(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, named: dict[str, torch.Tensor]
) -> None:
    torch.save(named, tmp_path / "theirs.pth")
    names = ",".join(f"thing{i}" for i in range(len(named["head.conv5.5.weight"])))
    write_folder(tmp_path / "mine", train=1, val=2)
    keys = ["data=folder", f"data.root={tmp_path}/mine", f"data.classes=[{names}]", "run_dir=scored"]
    done = command("evaluate", "checkpoint=theirs.pth", *keys, "data.num_workers=0", "accelerate=false")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "scored" / "results.json").read_text())["images"] == 2
    nameless = command("evaluate", "checkpoint=theirs.pth")
    assert (nameless.returncode, nameless.stderr.count("\n")) == (1, 1)
    assert "published weights, which do not name their" in nameless.stderr


def test_what_is_missing_or_left_over_is_listed(tmp_path: Path, named: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "x.pth"
    torch.save({k: v for k, v in named.items() if k != "jpu.dilation2.0.bn.bias"}, path)
    with pytest.raises(UserError, match=r"1 tensors are missing: model\.neck\.branches\.1\.1\.bias"):
        checkpoint.load(path)
    torch.save({**named, "head.novelty.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"1 tensors belong to no known part of the network: head\.novelty\.weight"):
        checkpoint.load(path)
    torch.save({**named, "jpu.conv3.0.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"1 tensors have another shape: model\.neck\.convs\.0\.0\.weight"):
        checkpoint.load(path)
    torch.save({"fc.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"tensors \(fc\.weight, \.\.\.\) are those of no network"):
        checkpoint.load(path)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_a_pickle_that_wants_more_than_weights_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}, "extra": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="wants more than weights"):
        checkpoint.load(tmp_path / "evil.pth")
    assert "run" not in capsys.readouterr().out
    with (tmp_path / "plain.pth").open("wb") as file:
        pickle.dump(_Evil(), file)
    with pytest.raises(UserError, match="wants more than weights"):
        checkpoint.load(tmp_path / "plain.pth")
