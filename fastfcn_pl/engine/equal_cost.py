"""Cost of a network relative to a reference, and the width of its neck at which the two are closest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from fastfcn_pl.acceleration.cuda_graph import CALLS_BEFORE_RECORDING
from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.acceleration.training import memory_format, optimize_for_training
from fastfcn_pl.config import build, validation
from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.cost import cost, step, timings, training_mib
from fastfcn_pl.models.segmenter import Segmenter

Model = dict[str, Any]
"""The node `model` of a configuration, as plain containers."""
_STEP, _WIDEST = 8, 4096
"""Widths are multiples of the first, up to the second."""
_TURNS, _SECONDS = 15, 0.05
"""Turns in which a network and the reference are timed, and the least time of each turn."""
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Choice:
    """A neck's `width` (None if it has none), its network's cost, that of the reference, and their ratio."""

    width: int | None
    cost: float
    reference: float
    ratio: float


def choose(cfg: DictConfig, model: Model, reference: Model, what: str) -> Choice:
    """Choose the width at which the network `model` costs what `reference` does, or the closest cost that it can.

    The cost is that of the whole network under the conditions of `cfg`, of `train` or `benchmark`. `what` is `gmacs`
    (of one image), `latency` (of predicting, in ms) or `train_memory` (of a training step, in MiB). Raises UserError
    if a network cannot be built or measured.
    """
    validation.check(cfg)
    if cfg.get("threads") is not None:
        torch.set_num_threads(cfg.threads)
    meter = _METERS[what](Conditions.of(cfg), reference)
    width, ratio = model.get("neck", {}).get("width"), 1.0
    if model != reference and width is None:
        ratio = meter.ratio(model)
    elif model != reference:
        width, ratio = closest_width(lambda width: meter.ratio(_widened(model, width)), _smallest_width(meter, model))
    return Choice(width, ratio * meter.base, meter.base, ratio)


def closest_width(ratio: Callable[[int], float], smallest: int) -> tuple[int, float]:
    """Return the multiple of `smallest` whose `ratio` of costs is closest to 1, and that ratio.

    The ratio is taken to grow with the width. Neighbours of the result are looked at as well, since measured costs do
    not always grow.
    """
    ratios: dict[int, float] = {}

    def is_below(multiple: int) -> bool:
        if multiple not in ratios:
            ratios[multiple] = ratio(multiple * smallest)
        return ratios[multiple] < 1

    low, high = 0, 1
    while is_below(high) and 2 * high * smallest <= _WIDEST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    for neighbour in range(max(low - 1, 1), min(high + 1, _WIDEST // smallest) + 1):
        is_below(neighbour)
    multiple = min(ratios, key=lambda multiple: (abs(ratios[multiple] - 1), multiple))
    return multiple * smallest, ratios[multiple]


def _widened(model: Model, width: int) -> Model:
    return {**model, "neck": {**model["neck"], "width": width}}


def _smallest_width(meter: Meter, model: Model) -> int:
    """Return the smallest width that the neck accepts: if its groups divide the width, others are its multiples."""
    meter.outline(model)  # an error that has nothing to do with the width is raised here
    for width in range(_STEP, _WIDEST + 1, _STEP):
        try:
            meter.outline(_widened(model, width))
        except UserError:
            continue
        return width
    raise UserError(f"match: no multiple of {_STEP} up to {_WIDEST} can be model.neck.width: leave match out")


@dataclass(frozen=True)
class Conditions:
    """Conditions of a measurement: classes, device, precision, and the batches as `[images, height, width]`."""

    num_classes: int
    device: torch.device
    precision: str
    channels_last: bool
    accelerate: bool
    predicted: list[int]
    trained: list[int] | None

    @classmethod
    def of(cls, cfg: DictConfig) -> Conditions:
        """Return the conditions that `benchmark` or `train` are configured with; for `train`, the size of its crops."""
        trained: list[int] | None
        if "data" in cfg:
            height, width = _crop_size(cfg)
            num_classes, name = build.datamodule(cfg).spec.num_classes, str(cfg.trainer.accelerator)
            predicted, trained = [1, height, width], [cfg.data.batch_size, height, width]
            precision = cfg.trainer.precision
        else:
            num_classes, name, precision = cfg.num_classes, cfg.device, cfg.precision
            predicted = [cfg.batch, *cfg.size]
            trained = None if cfg.training is None else [cfg.training.batch, *cfg.training.size]
        on_gpu = torch.cuda.is_available() and (name in ("auto", "gpu") or name.startswith("cuda"))
        device = torch.device((name if name.startswith("cuda") else "cuda") if on_gpu else "cpu")
        options = {"channels_last": cfg.channels_last, "accelerate": cfg.accelerate}
        return cls(num_classes, device, str(precision), predicted=predicted, trained=trained, **options)


def _crop_size(cfg: DictConfig) -> tuple[int, int]:
    """Return height and width of the images that a run trains on."""
    augmentation = cfg.data.get("augmentation") or {}
    size = augmentation.get("crop_size") or cfg.data.get("size")
    if size is None:
        raise UserError("match needs the size of the training images: set data.augmentation.crop_size")
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class Meter:
    """One kind of cost, of the reference (`base`) and of other networks relative to it (`ratio`)."""

    def __init__(self, conditions: Conditions, reference: Model) -> None:
        self.conditions = conditions
        self.base = self.count(reference)

    def count(self, model: Model) -> float:
        """Return the cost of a network."""
        raise NotImplementedError

    def ratio(self, model: Model) -> float:
        return self.count(model) / self.base

    def network(self, model: Model) -> Segmenter:
        """Build a network without fetching weights."""
        cfg = build.configuration({"model": model})
        build.without_pretrained(cfg)
        return build.model(cfg, self.conditions.num_classes)

    def outline(self, model: Model) -> Segmenter:
        """Build a network on the meta device if all of its parts can be built there."""
        try:
            with torch.device("meta"):
                return self.network(model)
        except InstantiationException:
            return self.network(model)


class Gmacs(Meter):
    """10^9 multiply-accumulates of predicting one image."""

    def count(self, model: Model) -> float:
        _, height, width = self.conditions.predicted
        return cost(self.outline(model), (height, width))["total"].gmacs


class TrainMemory(Meter):
    """Peak memory of a training step in MiB, without loss and optimizer: measured on a GPU, counted otherwise."""

    def count(self, model: Model) -> float:
        conditions = self.conditions
        if conditions.trained is None:
            raise UserError("match.what=train_memory needs the size of a training step: set training.batch and .size")
        batch, height, width = conditions.trained
        if conditions.device.type != "cuda":
            return training_mib(self.outline(model), batch, (height, width))
        torch.cuda.reset_peak_memory_stats(conditions.device)
        before = torch.cuda.memory_allocated(conditions.device)
        network = self.network(model).to(conditions.device).train()
        options = {"channels_last": conditions.channels_last, "accelerate": conditions.accelerate}
        form = optimize_for_training(network, device=conditions.device, precision=conditions.precision, **options)
        x = torch.randn(batch, network.in_chans, height, width, device=conditions.device).contiguous(memory_format=form)
        dtype = _AUTOCAST.get(conditions.precision)
        with torch.autocast("cuda", dtype, enabled=dtype is not None):
            step(network, x)
        return (torch.cuda.max_memory_allocated(conditions.device) - before) / 2**20


class Latency(Meter):
    """Milliseconds of the network that predicts.

    A network and the reference are timed in turns, so that a machine that becomes slower slows down both.
    """

    def count(self, model: Model) -> float:
        """Return the reference's latency, and keep the reference to compare others with."""
        self.reference = self._prepared(model)
        first = median(self._seconds(self.reference, 3))
        self.calls = math.ceil(_SECONDS / first)
        return 1000 * median(self._seconds(self.reference, max(self.calls, _TURNS)))

    def ratio(self, model: Model) -> float:
        network, ratios = self._prepared(model), []
        for turn in range(_TURNS):
            pair = (network, self.reference) if turn % 2 else (self.reference, network)
            seconds = {id(of): median(self._seconds(of, self.calls)) for of in pair}
            ratios.append(seconds[id(network)] / seconds[id(self.reference)])
        return median(ratios)

    def _prepared(self, model: Model) -> Segmenter:
        """Build a network as `predict` runs it, and run it until it is as fast as it gets."""
        conditions, form = self.conditions, memory_format(self.conditions.channels_last)
        network = self.network(model).to(conditions.device).to(memory_format=form)
        batch, *size = conditions.predicted
        self.x = torch.randn(batch, network.in_chans, *size, device=conditions.device).contiguous(memory_format=form)
        dtype, accelerate = _AUTOCAST.get(conditions.precision), conditions.accelerate
        optimized = optimize_for_inference(network, device=conditions.device, dtype=dtype, accelerate=accelerate)
        self._seconds(optimized, CALLS_BEFORE_RECORDING + 1 if conditions.device.type == "cuda" else 2)
        return optimized

    @torch.no_grad()
    def _seconds(self, network: Segmenter, calls: int) -> list[float]:
        return timings(lambda: network(self.x), {}, self.conditions.device, calls, 0)["total"]


_METERS: dict[str, type[Meter]] = {"gmacs": Gmacs, "latency": Latency, "train_memory": TrainMemory}
