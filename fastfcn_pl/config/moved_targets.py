"""Names of earlier versions in stored configurations, such as a checkpoint's, and the names that they have now."""

from __future__ import annotations

from typing import Any

MODULES = {
    "callbacks.classes": "training.callbacks.class_scores",
    "callbacks.facts": "training.callbacks.run_metadata",
    "callbacks.files": "training.callbacks.wandb_artifacts",
    "callbacks.finite": "training.callbacks.terminate_on_nan",
    "callbacks.gradients": "training.callbacks.gradient_norm",
    "callbacks.images": "training.callbacks.image_scores",
    "callbacks.last": "training.callbacks.last_checkpoint",
    "callbacks.memory": "training.callbacks.gpu_memory",
    "callbacks.progress": "training.callbacks.progress_bar",
    "callbacks.samples": "training.callbacks.sample_images",
    "callbacks.summary": "training.callbacks.cost_summary",
    "callbacks.throughput": "training.callbacks.throughput",
    "data.loading": "data.loader_options",
    "data.photometric": "data.transforms.photometric",
    "data.transforms": "data.transforms.geometric",
    "inference": "evaluation.protocols",
    "loggers": "training.loggers",
    "optim": "training.optim",
}
"""Modules below `fastfcn_pl` that options named before version 0.2, and where their classes are now."""
RENAMED_KEYS = {
    "boundary_ratio": "diagnostics=boundary_iou diagnostics.boundary_iou.ratio",
    "distribution": "prepare",
    "init_from": "checkpoint",
}
"""Keys of configurations that have another name now."""
ADDED_KEYS: dict[str, Any] = {
    "callbacks.absent._target_": "fastfcn_pl.training.callbacks.absent_classes.AbsentClasses",
    "data.augmentation.color": [],
    "data.sampler._target_": "fastfcn_pl.data.samplers.Uniform",
    "model.backbone.drop_path_rate": 0.0,
    "model.backbone.in_chans": "${in_chans:${oc.select:data.bands,null}}",
    "model.neck.upsampler._target_": "fastfcn_pl.models.necks.upsamplers.interpolation.Bilinear",
    "model.neck.upsampler._partial_": True,
    "model.neck.output_level": 3,
    "optimizer.decay_norm_and_bias": True,
    "warmup._target_": "fastfcn_pl.training.schedules.Warmup",
}
"""Keys that did not exist in version 0.2, with the values with which a job computes what it did then."""
_PACKAGE = "fastfcn_pl."


def upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a stored configuration, in plain containers, that today's code understands.

    Before version 0.2 a training named the weights that it starts from by `init_from`, and the run that it resumes by
    `checkpoint`.
    """
    copy: dict[str, Any] = _with_moved_targets(config)
    if "init_from" in copy:
        copy["resume"] = copy.get("checkpoint")
        copy["checkpoint"] = copy.pop("init_from")
    return copy


def is_as_before(key: str, value: Any) -> bool:
    """Tell whether `value` of a key that a configuration of an earlier version lacks leaves its job as it was."""
    if isinstance(value, dict):
        return all(is_as_before(f"{key}.{inner}", item) for inner, item in value.items())
    if key == "warmup.start":  # says nothing without a length
        return True
    return value is None or (key in ADDED_KEYS and ADDED_KEYS[key] == value)


def moved_target(target: str) -> str:
    """Return the name that a `_target_` has now."""
    module, _, name = target.rpartition(".")
    moved = MODULES.get(module.removeprefix(_PACKAGE)) if module.startswith(_PACKAGE) else None
    return target if moved is None else f"{_PACKAGE}{moved}.{name}"


def _with_moved_targets(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: moved_target(item) if key == "_target_" and isinstance(item, str) else _with_moved_targets(item)
            for key, item in node.items()
        }
    return [_with_moved_targets(item) for item in node] if isinstance(node, list) else node
