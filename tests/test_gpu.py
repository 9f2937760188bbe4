"""Kernels that only a GPU runs against the formula or the CPU, and the commands on it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from fastfcn_pl import Predictor
from fastfcn_pl.acceleration import cuda_graph
from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.acceleration.training import optimize_for_training
from fastfcn_pl.config import build
from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.engine.equal_cost import choose
from fastfcn_pl.evaluation.score_map import ScoreMap
from fastfcn_pl.losses.cross_entropy import CrossEntropy
from fastfcn_pl.ops.depthwise_conv import depthwise_conv
from fastfcn_pl.training.module import SegmentationModule
from tests.conftest import TINY
from tests.fakes.network import fill_statistics

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
Command = Callable[..., subprocess.CompletedProcess[str]]
Make = Callable[..., DictConfig]
PRECISIONS = ["32-true", "bf16-mixed", "16-mixed"]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32, not in TensorFloat-32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def _module(make_config: Make, *overrides: str) -> SegmentationModule:
    cfg = make_config("data=shapes", *TINY, *overrides)
    torch.manual_seed(0)
    module = build.module(cfg, build.datamodule(cfg).spec)
    fill_statistics(module.model)
    return module


def _image(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("head", ["fcn", "psp", "aspp", "encnet"])
def test_it_gives_the_logits_of_the_cpu(head: str, make_config: Make) -> None:
    model = _module(make_config, f"model/head={head}").model.eval()
    with torch.no_grad():
        expected = model(_image(65, 97)).logits
        actual = optimize_for_inference(model.to(GPU), device=GPU)(_image(65, 97).to(GPU)).logits
    assert (actual.cpu() - expected).abs().max() < 1e-4 * expected.std()


@pytest.mark.parametrize(("dtype", "error"), [(None, 1e-4), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_it_records_the_size_that_comes_again(
    dtype: torch.dtype | None, error: float, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graph, "CALLS_BEFORE_RECORDING", 2)
    model = _module(make_config, "model/head=encnet").model.eval().to(GPU)
    fast, recorded = optimize_for_inference(model, device=GPU, dtype=dtype), []
    for size, count in (((64, 96), 5), ((65, 97), 4), ((64, 96), 1)):
        for i in range(count):
            x = _image(*size, seed=i).to(GPU)
            with torch.no_grad():
                expected = model(x).logits
            with torch.inference_mode(i % 2 == 0), torch.no_grad():
                actual = fast(x).logits
            assert (actual.float() - expected).abs().max() < error * expected.std(), (size, i)
            recorded.append(fast.forward._graph is not None)  # type: ignore[attr-defined]
    assert recorded == [False, False, True, True, True, False, False, True, True, False]


@pytest.mark.parametrize("backbone", ["convnext_tiny", "swin_tiny", "mobilenetv3_large", "efficientnet_lite0"])
def test_other_families_are_recorded(backbone: str, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "CALLS_BEFORE_RECORDING", 1)
    cfg = make_config("data=shapes", f"model/backbone={backbone}", "model.backbone.pretrained=false")
    model = build.model(cfg, 4).eval().to(GPU)
    with torch.no_grad():
        x = _image(96, 128).to(GPU)
        expected, fast = model(x).logits, optimize_for_inference(model, device=GPU)
        for _ in range(3):
            actual = fast(x).logits
    assert (actual - expected).abs().max() < 1e-3 * expected.std()


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (3, 8), (5, 4)])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_dilated_depthwise_convolution_is_the_plain_one(
    kernel: int, dilation: int, dtype: torch.dtype, error: float, bias: bool
) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(70, 1, kernel, kernel), torch.randn(2, 70, 23, 37)
    biases, results = torch.randn(70) if bias else None, []
    for device in (CPU, GPU):
        form = torch.float64 if device == CPU else torch.float32
        there = x.to(device, form, memory_format=torch.channels_last).requires_grad_()
        leaves = [there, *(t.to(device, form).requires_grad_() for t in (weight, biases) if t is not None)]
        arguments = leaves[0], leaves[1], leaves[2] if bias else None, dilation
        with torch.autocast(device.type, dtype, enabled=device == GPU and dtype != torch.float32):
            with torch.no_grad():
                predicted = depthwise_conv(*arguments)
            out = depthwise_conv(*arguments)
        assert out.dtype == (torch.float64 if device == CPU else dtype)
        assert device == CPU or out.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(predicted, out) or bias, "the bias is added before rounding, or after it"
        gradients = torch.autograd.grad((out * torch.arange(37, device=device) / 37).sum(), leaves)
        results.append([v.detach().double().cpu() for v in (out, predicted, *gradients)])
    for expected, actual in zip(*results, strict=True):
        assert (actual - expected).norm() < error * expected.norm()


@pytest.mark.parametrize("classes", [5, 150])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
def test_the_loss_is_the_formula(classes: int, smoothing: float, weighted: bool, align_corners: bool) -> None:
    rng = torch.Generator("cuda").manual_seed(0)
    logits = 3 * torch.randn(2, classes, 33, 40, device=GPU, generator=rng)
    target = torch.randint(0, classes, (2, 257, 313), device=GPU, dtype=torch.uint8, generator=rng)
    target[:, :40] = IGNORE
    weights = torch.linspace(0.5, 2, classes).tolist() if weighted else None
    loss = CrossEntropy(class_weights=weights, label_smoothing=smoothing).to(GPU)
    results = []
    for plain in (True, False):
        x = logits.clone().requires_grad_()
        if plain:
            full = F.interpolate(x, target.shape[-2:], mode="bilinear", align_corners=align_corners)
            options = {"weight": loss.weights, "ignore_index": IGNORE, "label_smoothing": smoothing}
            value = F.cross_entropy(full, target.long(), **options)
        else:
            value = loss(x, target, align_corners)
        value.backward()
        results.append((value.detach(), x.grad))
    (value, gradient), (actual, of_bands) = results
    assert abs(actual / value - 1) < 1e-6
    assert (of_bands - gradient).abs().max() < 2e-6 * gradient.abs().max()


@pytest.mark.parametrize("align_corners", [True, False])
def test_labels_are_those_of_the_cpu(align_corners: bool) -> None:
    logits = torch.randn(2, 59, 65, 86, generator=torch.Generator().manual_seed(0))
    maps = [ScoreMap.of(logits.to(d)).resized((512, 683), align_corners) for d in (CPU, GPU)]
    scores = [m.scores().cpu() for m in maps]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-5)
    assert (maps[0].labels() == maps[1].labels().cpu()).double().mean() > 0.9999


def test_a_training_step_never_waits_for_the_gpu(make_config: Make) -> None:
    cfg = make_config("data=shapes", "model/head=encnet", *TINY)
    module = _module(make_config, "model/head=encnet").to(GPU).train()
    options = {"precision": "bf16-mixed", "channels_last": True}
    module.memory_format = optimize_for_training(module.model, device=GPU, **options)
    optimizer = build.build(cfg.optimizer)(module.model, 2)
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8, device=GPU)
    target = torch.randint(0, 4, (2, 96, 128), dtype=torch.uint8, device=GPU)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            total, _ = module.loss(module.model(module.normalize(images)), target, module.model.align_corners)
        total.backward()
        optimizer.step()

    step()  # libraries set themselves up, sizes are looked up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_gradients_in_bfloat16_are_as_good_as_those_of_the_default_memory_format(make_config: Make) -> None:
    images, target = _image(96, 128), torch.randint(0, 4, (2, 96, 128), dtype=torch.uint8)

    def gradients(channels_last: bool, low: bool) -> dict[str, Tensor]:
        module = _module(make_config, "model/head=encnet").to(GPU).train()
        options = {"precision": "bf16-mixed" if low else "32-true", "channels_last": channels_last}
        form = optimize_for_training(module.model, device=GPU, **options)
        torch.manual_seed(0)
        with torch.autocast("cuda", torch.bfloat16, enabled=low):
            x = images.to(GPU).contiguous(memory_format=form)
            module.loss(module.model(x), target.to(GPU), module.model.align_corners)[0].backward()
        return {
            name: p.grad.contiguous().flatten() for name, p in module.model.named_parameters() if p.grad is not None
        }

    exact, ours, plain = gradients(True, False), gradients(True, True), gradients(False, True)
    for layers in ("", "backbone", "neck", "head", "aux_head"):
        whole = [torch.cat([g[name] for name in exact if name.startswith(layers)]) for g in (ours, plain, exact)]
        of_ours, of_plain = (float(F.cosine_similarity(g, whole[2], 0)) for g in whole[:2])
        assert of_ours > of_plain - 0.01, layers
        assert of_ours > 0.95, layers


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_network_is_trained_scored_and_predicts(precision: str, command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    actual = command(
        *("train", "-cn", "quickstart", f"run_dir={run}", "logger=none", "trainer.accelerator=gpu"),
        *(f"trainer.precision={precision}", "trainer.gradient_clip_val=10"),
        fresh=True,
    )
    assert actual.returncode == 0, actual.stderr
    assert "mIoU" in actual.stdout
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).resize((320, 240))
    best = next((run / "checkpoints").glob("best*.ckpt"))
    labels = [Predictor(best, device, p)(picture) for device, p in (("cpu", "32-true"), ("cuda", precision))]
    assert (labels[0] == labels[1]).mean() > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("option", ["compile=true", "callbacks=ema", "trainer.strategy=ddp", "trainer.benchmark=true"])
def test_options_of_training(option: str, command: Command, tmp_path: Path) -> None:
    actual = command(
        *("train", "-cn", "quickstart", f"run_dir={tmp_path / 'run'}", "logger=none", "trainer.accelerator=gpu"),
        *("trainer.max_epochs=1", "trainer.precision=bf16-mixed", option),
        fresh=True,
    )
    assert actual.returncode == 0, actual.stderr


@pytest.mark.parametrize("what", ["latency", "train_memory"])
def test_widths_of_equal_cost_are_measured_on_it(what: str, make_config: Make) -> None:
    tiny = ["model.backbone.name=test_resnet", "model.backbone.pretrained=false", "size=[256,256]", "device=cuda"]
    cfg, reference = (make_config(*tiny, f"model/neck={neck}", name="benchmark") for neck in ("fpn", "jpu_128"))
    model, other = (OmegaConf.to_container(network.model, resolve=True) for network in (cfg, reference))
    chosen = choose(cfg, model, other, what)  # type: ignore[arg-type]
    assert chosen.reference > 0
    assert chosen.ratio == pytest.approx(1, abs=0.08)


@pytest.mark.slow
def test_the_cost_is_measured_on_it(command: Command, tmp_path: Path) -> None:
    actual = command(
        "benchmark", f"run_dir={tmp_path}", "device=cuda", "precision=bf16-mixed", "size=[128,160]", *TINY[:2]
    )
    assert actual.returncode == 0, actual.stderr
    assert torch.cuda.get_device_name() in actual.stdout + (tmp_path / "benchmark.json").read_text()
