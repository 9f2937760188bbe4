"""Shapes of a run's files: the keys that a report reads, and their types."""

from __future__ import annotations

from typing import Any

from fastfcn_pl.tools.report.files import MAYBE_NUMBER, MAYBE_TEXT, NUMBER, TEXT, Shape

_ANY = (str, int, float, bool, list, dict, type(None))
_BY_CLASS: Shape = {"*": MAYBE_NUMBER}
_COST: dict[str, Any] = {
    "parameters?": MAYBE_NUMBER,
    "gmacs?": MAYBE_NUMBER,
    "latency_ms?": MAYBE_NUMBER,
    "peak_mib?": MAYBE_NUMBER,
    "size?": [NUMBER, NUMBER],
}
_METADATA: dict[str, Any] = {
    "commit?": MAYBE_TEXT,
    "versions?": {"*": MAYBE_TEXT},
    "processor?": MAYBE_TEXT,
    "world_size?": NUMBER,
    "cost?": _COST,
    **_COST,
}
RESULTS: Shape = {
    "data": TEXT,
    "split": TEXT,
    "protocol": TEXT,
    "protocol_options": {"*": _ANY},
    "mIoU": MAYBE_NUMBER,
    "mIoU_60_classes?": MAYBE_NUMBER,
    "pixel_accuracy?": MAYBE_NUMBER,
    "mean_accuracy?": MAYBE_NUMBER,
    "IoU": _BY_CLASS,
    "share?": _BY_CLASS,
    "absent_classes?": [TEXT],
    "images": NUMBER,
    "split_images?": NUMBER,
    "diagnostics?": {"*": {"scores": {"*": _BY_CLASS}}},
    "train_seconds?": MAYBE_NUMBER,
    "steps?": MAYBE_NUMBER,
    "epochs?": MAYBE_NUMBER,
    "equal_cost?": MAYBE_TEXT,
    "match?": ({"solved?": ({"width?": MAYBE_NUMBER, "*": _ANY}, type(None)), "*": _ANY}, type(None)),
    **_METADATA,
}
HPARAMS: Shape = _METADATA
CONFIG: dict[str, Any] = {
    "question?": MAYBE_TEXT,
    "published?": (list, type(None)),
    "match?": ({"what": MAYBE_TEXT, "of": TEXT, "within": NUMBER}, type(None)),
}
TRAIN_CONFIG: Shape = {
    "seed": NUMBER,
    "baseline?": MAYBE_TEXT,
    "margin?": MAYBE_NUMBER,
    "data": {"name?": MAYBE_TEXT, "*": _ANY},
    "protocol": {"_target_": TEXT, "*": _ANY},
    "trainer": {"max_steps?": MAYBE_NUMBER, "max_epochs?": MAYBE_NUMBER, "*": _ANY},
    **CONFIG,
}
HYDRA: Shape = {
    "hydra": {
        "job": {"name": TEXT, "config_name": TEXT},
        "overrides": {"hydra": [TEXT], "task": [TEXT]},
        "runtime": {"choices": {"*": MAYBE_TEXT}, "config_sources": [{"path": MAYBE_TEXT, "provider": MAYBE_TEXT}]},
    }
}
SWEEP_JOB: Shape = {"status": TEXT}
BENCHMARK: dict[str, Any] = {
    "batch": NUMBER,
    "device": TEXT,
    "precision": TEXT,
    "threads": MAYBE_NUMBER,
    **_COST,
    "size": [NUMBER, NUMBER],
}
BENCHMARK_RUN: Shape = {
    **BENCHMARK,
    "parameters": NUMBER,
    "gmacs": NUMBER,
    "latency_ms": NUMBER,
    "latency_p10_ms": NUMBER,
    "latency_p90_ms": NUMBER,
    "peak_mib": MAYBE_NUMBER,
    "training_peak_mib": MAYBE_NUMBER,
    "repeats": NUMBER,
    "equal_cost?": MAYBE_TEXT,
    "training": ({"batch": NUMBER, "size": [NUMBER, NUMBER]}, type(None)),
    "versions": {"torch": TEXT, "*": MAYBE_TEXT},
    "overrides": [TEXT],
    "parts": {"*": {"latency_ms": NUMBER, "gmacs": NUMBER, "parameters": NUMBER}},
}
PUBLISHED: dict[str, Any] = {
    "name?": MAYBE_TEXT,
    "run?": MAYBE_TEXT,
    "over?": MAYBE_TEXT,
    "mIoU?": MAYBE_NUMBER,
    "mIoU_60_classes?": MAYBE_NUMBER,
    "pixel_accuracy?": MAYBE_NUMBER,
    "fps?": MAYBE_NUMBER,
    "gmacs?": MAYBE_NUMBER,
    "source?": MAYBE_TEXT,
}
OVERLAY: Shape = {"height": (int,), "colors": {"*": [(int,), (int,), (int,)]}}
