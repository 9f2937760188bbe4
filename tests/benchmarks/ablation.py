"""The gain of each fast path: `FASTFCN_SHARED=<dir> python -m tests.benchmarks.ablation experiments/speed/ablation.md`.

A step, an image or an epoch of a command is timed with all fast paths, and with one of them off. Both take turns in one
process, so that both meet a drift of the machine's speed. Gains are medians over pairs of turns; `half of them` is the
range of the middle half of the pairs. Memory is the peak above what is there when the work begins, in a process of its
own. A second argument selects the paths whose name contains it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles

import torch

from fastfcn_pl.core.tables import markdown_table
from tests.benchmarks import commands
from tests.benchmarks import fast_paths as paths
from tests.benchmarks.fast_paths import FastPath
from tests.benchmarks.measure import Work, device, machine, peak_mib, turns
from tests.benchmarks.report import report

THREADS, SECONDS, LEAST_GAIN = 2, 4.0, 0.1
ENCNET, STUDY = ["model=fastfcn_encnet_r50"], "CamVid's study"
UNWEIGHTED = "loss.terms.cross_entropy.loss.class_weights=null"
"""Without data there are no class weights; they take no time."""
SKIPPED = """No GPU is here. Not measured: {}."""
NOTE = """Gain is the share of the time or memory that a path saves. A path is kept if it saves 10 % or more of one
command on a device on which that command is used. Training a ResNet-50 on a CPU is no such use."""


@dataclass(frozen=True)
class Trial:
    """A fast path, and the work of a `command` that is done with it and without; `prepare` returns that work."""

    path: FastPath
    command: str
    precision: str
    prepare: Callable[[], Work]
    memory: bool = False


def trials() -> list[Trial]:
    """Return what is measured on this machine."""
    return on_gpu() if device().type == "cuda" else [*training_on_cpu(), *prediction_on_cpu(), *scoring(), *reading()]


def training_on_cpu() -> list[Trial]:
    """Return the trials of `train` on a CPU."""
    steps = {
        "train -cn quickstart": partial(commands.train, "quickstart", [], 8, 16, (96, 96)),
        "train -cn neck_ablation": partial(commands.train, "camvid", [UNWEIGHTED], 11, 8, (160, 192)),
        "train model=fastfcn_encnet_r50, 2 x 240x240": partial(commands.train, "train", ENCNET, 150, 2, (240, 240)),
    }
    dilated = partial(commands.train, "camvid", [UNWEIGHTED, "model/neck=dilated"], 11, 8, (160, 192))
    found = [Trial(paths.PHASES, "train -cn neck_ablation model/neck=dilated", "float32", dilated)]
    return found + [
        Trial(path, command, "float32", step, memory=path is paths.LOSS)
        for command, step in steps.items()
        for path in (paths.CHANNELS_LAST, paths.LOSS)
    ]


def prediction_on_cpu() -> list[Trial]:
    """Return the trials of `predict` on a CPU."""
    found = predictions("float32", None, (paths.FOLD, paths.PACK, paths.WINOGRAD, paths.BANDS))
    for name, model in (("FCN", "fastfcn"), ("PSP", "fastfcn_psp_r50")):
        prepare = partial(commands.predict, "train", [f"model={model}"], 150, (512, 512))
        found.append(Trial(paths.WINOGRAD, f"predict, {name} + JPU R50", "float32", prepare))
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        found += predictions("bfloat16", torch.bfloat16, (paths.FOLD, paths.PACK, paths.BANDS))
    return found


def predictions(precision: str, dtype: torch.dtype | None, of: tuple[FastPath, ...]) -> list[Trial]:
    """Return the trials of `predict` in a precision."""
    networks: dict[str, Callable[[], Work]] = {
        STUDY: partial(commands.predict, "camvid", [], 11, (360, 480), dtype),
        "EncNet + JPU R50": partial(commands.predict, "train", ENCNET, 150, (512, 512), dtype),
    }
    return [
        Trial(path, f"predict, {name}", precision, prepare, memory=name != STUDY and path is not paths.WINOGRAD)
        for name, prepare in networks.items()
        for path in of
    ]


def scoring() -> list[Trial]:
    """Return the trials of `evaluate`."""
    networks = {
        STUDY: partial(commands.evaluate, "camvid", [], 11, (360, 480)),
        "EncNet + JPU R50, 512x683": partial(commands.evaluate, "train", ENCNET, 150, (512, 683)),
    }
    return [Trial(paths.BANDS, f"evaluate, {name}", "float32", prepare) for name, prepare in networks.items()]


def reading() -> list[Trial]:
    """Return the trials of what workers do, and of the start of a command."""
    augmentation = paths.PNG, paths.REGION, paths.RESIZE, paths.BLUR, paths.TAKEN
    gray, palette = (partial(commands.read_photographs, masks) for masks in ("gray", "palette"))
    works: list[tuple[str, Callable[[], Work], tuple[FastPath, ...]]] = [
        ("a worker of train -cn camvid", commands.read_camvid, augmentation),
        ("a worker of train -cn camvid", partial(commands.read_camvid, cache=True), (paths.CACHE,)),
        ("a worker of train data=ade20k", gray, (*augmentation, paths.BYTES)),
        ("a worker of train data=pascal_voc", palette, (paths.PALETTE,)),
        ("the workers of train -cn camvid, an epoch", commands.read_epochs, (paths.WORKERS,)),
        ("train --help", commands.start, (paths.START,)),
    ]
    return [Trial(path, command, "", prepare) for command, prepare, of in works for path in of]


def on_gpu() -> list[Trial]:
    """Return the trials of a GPU."""
    step = partial(commands.train, "train", ENCNET, 150, 16, (480, 480), "bf16-mixed")
    command = "train model=fastfcn_encnet_r50, 16 x 480x480"
    in_training = paths.CHANNELS_LAST, paths.DEPTHWISE, paths.LOSS, paths.LOSS_KERNELS
    found = [Trial(path, command, "bf16-mixed", step, memory=True) for path in in_training]
    in_prediction = paths.FOLD, paths.RELU, paths.GRAPH, paths.DEPTHWISE, paths.BANDS
    found += predictions("float32", None, in_prediction)
    return found + predictions("bfloat16", torch.bfloat16, (*in_prediction, paths.CAST))


def prepared(trial: Trial, on: bool) -> Work:
    """Return the work of a trial, which is prepared and done with its path or without."""
    context = nullcontext if on else trial.path.off
    with context():
        work = trial.prepare()

    def run() -> None:
        with context():
            work()

    return run


def by_number(number: int, on: bool) -> Work:
    """Return the same of `trials()[number]`, in a process of its own."""
    torch.set_num_threads(THREADS)
    return prepared(trials()[number], on)


def main(file: str | None = None, name: str = "", seconds: float = SECONDS) -> str:
    """Measure, print the tables, and write them into `file`."""
    torch.set_num_threads(THREADS)
    rows: list[list[str]] = []
    gains: defaultdict[FastPath, list[float]] = defaultdict(list)
    for number, trial in enumerate(trials()):
        if name not in trial.path.name:
            continue
        times = list(turns(prepared(trial, on=True), prepared(trial, on=False), seconds))
        on, off = (median(column) for column in zip(*times, strict=True))
        saved = [1 - one / other for one, other in times]
        low, _, high = quantiles(saved, n=4)
        row = [trial.path.name, trial.command, trial.precision, f"{1e3 * on:.0f}", f"{1e3 * off:.0f}"]
        row += [f"{median(saved):.0%}", f"{low:.0%} to {high:.0%}"]
        gains[trial.path].append(median(saved))
        if trial.memory:
            with_path, without_path = (peak_mib(by_number, number, state) for state in (True, False))
            row += [f"{with_path:.0f}", f"{without_path:.0f}", f"{1 - with_path / without_path:.0%}"]
            gains[trial.path].append(1 - with_path / without_path)
        rows.append([*row, *[""] * (10 - len(row))])
        print(rows[-1], flush=True)
    heads = ["fast path", "command", "precision", "ms with", "ms without", "gain in time", "half of them"]
    heads += ["MiB with", "MiB without", "gain in memory"]
    text = f"{machine()} {NOTE}\n\n{verdicts(gains)}\n\n{markdown_table(heads, rows)}"
    where = "a GPU" if device().type == "cuda" else "a CPU"
    if device().type == "cpu":
        text += "\n\n" + SKIPPED.format(", ".join(dict.fromkeys(trial.path.name for trial in on_gpu())))
    report(file, f"Fast paths on {where}", "FASTFCN_SHARED=<dir> python -m tests.benchmarks.ablation <page>", text)
    return text


def verdicts(gains: dict[FastPath, list[float]]) -> str:
    """Return a table with a line for each path."""
    rows = [
        [path.name, path.condition, f"{max(found):.0%}", "yes" if max(found) >= LEAST_GAIN else "no"]
        for path, found in gains.items()
    ]
    return markdown_table(["fast path", "when", "largest gain", "10 % or more"], rows)


if __name__ == "__main__":
    main(*sys.argv[1:3])
