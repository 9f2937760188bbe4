"""Time to label an image: `python -m tests.benchmarks.inference [page.md] [published|dilated]`.

`published` runs our networks beside those of the published code, which is in REFERENCE=<a checkout of
wuhuikai/FastFCN>: the same weights (those of the reference outputs where FASTFCN_SHARED is set, else random ones) and
the same image of 512x512, batch 1, 2 threads, in turns in one process; medians. Theirs is run as their own script for
speed runs it, in float32 with its auxiliary head. `dilated` runs JPU beside a dilated backbone, both ours, with
EncNet's first convolution held at one size. With a page, its section is written.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.fold import fold
from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.config import build
from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.engine.checkpoint import Checkpoint
from fastfcn_pl.evaluation.protocols import logits
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.models.weights.recognize import recognise
from fastfcn_pl.tools.benchmark.memory import labels
from tests.benchmarks.measure import device, machine, medians
from tests.benchmarks.published import NETWORKS, published_network
from tests.benchmarks.report import report

THREADS, SIZE, ROUNDS, CLASSES = 2, (512, 512), 4, 59
NAMES = {
    "encnet_r50": "EncNet + JPU, ResNet-50",
    "encnet_r101": "EncNet + JPU, ResNet-101",
    "psp_r50": "PSP + JPU, ResNet-50",
    "deeplab_r50": "ASPP + JPU, ResNet-50",
}
BARS = {("encnet_r50", "float32"): "1.7", ("encnet_r50", "bfloat16"): "4.0"}
"""Least speedups over the published code, by network; others in float32 have to be 1.5 times as fast."""
PAPER = 37.56 / 18.77
"""EncNet with ResNet-50 on a Titan Xp, JPU to dilated, in images a second; JPU's first convolution is the smaller."""


NOTES = """`times as fast` is to logits at the image's size, `labels` to class indices (theirs by argmax). The published
code computes in float32. `folded` is our network with batch norms folded and nothing else, `float32` and `bfloat16` are
what `predict` and `evaluate` run; `compiled` is the folded one behind `torch.compile`."""
SLOW_BFLOAT16 = """bfloat16 is not measured here: this processor has no instructions for it and would take several times
as long as in float32."""


def image() -> Tensor:
    """Return a normalised image in the format that `predict` makes."""
    x = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last).to(device())


def same_weights(theirs: nn.Module) -> Segmenter:
    """Give `theirs` the weights of the reference outputs, and return our network with them."""
    if "FASTFCN_SHARED" in os.environ:
        spec = importlib.util.spec_from_file_location(
            "weights", Path(os.environ["FASTFCN_SHARED"], "parity", "weights.py")
        )
        assert spec is not None
        assert spec.loader is not None
        weights = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(weights)
        theirs.load_state_dict(weights.fill({name: list(t.shape) for name, t in theirs.state_dict().items()}))
    return Checkpoint.of_published(recognise(theirs.state_dict()), "the published network").build().model


def against_published(rounds: int, names: list[str]) -> str:
    """Return the table of our networks against the published ones."""
    rows = []
    for name in names:
        theirs = published_network(name, CLASSES).eval()
        trained = same_weights(theirs).to(device()).to(memory_format=torch.channels_last)
        theirs, x = theirs.to(device()), image()
        plain = x.contiguous()
        expected = theirs(plain)[0]
        made = variants(trained, compiled=name == "encnet_r50")
        took = medians(
            {
                "theirs": lambda theirs=theirs, plain=plain: theirs(plain)[0],
                "their labels": lambda theirs=theirs, plain=plain: theirs(plain)[0].argmax(1),
                **{f"{key} logits": lambda network=network, x=x: logits(network, x) for key, network in made.items()},
                **{f"{key} labels": lambda network=network, x=x: labels(network, x) for key, network in made.items()},
            },
            rounds,
        )
        rows.append([NAMES[name], "published", f"{1e3 * took['theirs']:.1f}", *[""] * 5])
        for key, network in made.items():
            error = float((logits(network, x) - expected).abs().max() / expected.std())
            equal = float((expected.argmax(1) == labels(network, x)).double().mean())
            times = [took["theirs"] / took[f"{key} logits"], took["their labels"] / took[f"{key} labels"]]
            bar = BARS.get((name, key), "1.5" if key == "float32" else "")
            row = ["", key, f"{1e3 * took[f'{key} logits']:.1f}", *(f"{ratio:.2f}" for ratio in times), bar]
            rows.append([*row, f"{error:.1e}", f"{100 * equal:.3f} %"])
            print(rows[-1], flush=True)
    notes = NOTES if _has_bfloat16() else f"{NOTES}\n\n{SLOW_BFLOAT16}"
    header = ["", "", "ms", "times as fast", "labels", "bar", "largest difference / std", "equal labels"]
    return markdown_table(header, rows) + f"\n\n{notes}"


def variants(trained: Segmenter, compiled: bool) -> dict[str, Segmenter]:
    """Return the networks that are made of a trained one to predict with."""
    made = {"folded": fold(trained), "float32": optimize_for_inference(trained, device=device())}
    if _has_bfloat16():
        made["bfloat16"] = optimize_for_inference(trained, device=device(), dtype=torch.bfloat16)
    if compiled:
        made["compiled"] = fold(trained)
        made["compiled"].compile()
    return made


def _has_bfloat16() -> bool:
    return device().type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def against_dilated(rounds: int) -> str:
    """Return the table of JPU against a dilated backbone, with equal heads, as `predict` runs them."""
    networks, x = {}, image()
    for kernel in (1, 3):
        for neck in ("dilated", "jpu"):
            keys = [f"model/neck={neck}", f"model.head.kernel_size={kernel}", "model.backbone.pretrained=false"]
            cfg = build.compose(["model=fastfcn_encnet_r50", *keys, "run_dir=.", "logger=none"])
            torch.manual_seed(0)
            network = build.model(cfg, CLASSES).to(device()).to(memory_format=torch.channels_last)
            networks[neck, kernel] = optimize_for_inference(network, device=device())
    took = medians({f"{neck} {k}": lambda n=n: labels(n, x) for (neck, k), n in networks.items()}, rounds)
    pairs = {
        "1x1": ("dilated 1", "jpu 1"),
        "3x3": ("dilated 3", "jpu 3"),
        "the paper's: 3x3, 1x1": ("dilated 3", "jpu 1"),
    }
    rows = [
        [name, f"{1e3 * took[slow]:.1f}", f"{1e3 * took[fast]:.1f}", f"{took[slow] / took[fast]:.2f}"]
        for name, (slow, fast) in pairs.items()
    ]
    rows.append(["the paper's, published", f"{1e3 / 18.77:.1f}", f"{1e3 / 37.56:.1f}", f"{PAPER:.2f}"])
    return markdown_table(["conv5 of EncNet", "dilated, ms", "JPU, ms", "times as fast"], rows)


PARTS = {"published": "Against the published code", "dilated": "JPU against a dilated backbone"}


def main(
    file: str | None = None, part: str | None = None, rounds: int = ROUNDS, names: str = ",".join(NETWORKS)
) -> str:
    """Measure, print the tables, and write them into `file`."""
    torch.set_num_threads(THREADS)
    text = ""
    for key in [part] if part else PARTS:
        with torch.no_grad():
            text = against_dilated(rounds) if key == "dilated" else against_published(rounds, names.split(","))
        text = f"{SIZE[0]}x{SIZE[1]}, batch 1; {machine()}\n\n{text}"
        report(file, PARTS[key], f"python -m tests.benchmarks.inference {file} {key}", text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:3])
