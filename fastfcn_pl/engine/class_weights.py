"""Class weights of the loss that come from the data: `class_weights=balanced`, `median_frequency` or `data`."""

from __future__ import annotations

from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig

from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.data.class_frequencies import BY_NAME
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.data.rare_class import count_pixels
from fastfcn_pl.engine import startup_messages
from fastfcn_pl.evaluation.formatting import significant

_KEY = "class_weights"
_OF_DATA = "data"
"""The weights that belong to a data set, or none."""


def resolve(cfg: DictConfig, datamodule: SegmentationDataModule) -> None:
    """Replace names of class weights in `cfg.loss` by numbers, which the run's checkpoints keep.

    Raises UserError for another name, or if a list is not as long as the data set's classes.
    """
    pixels: np.ndarray | None = None
    for path, node in _nodes(cfg.loss, "loss"):
        value, spec = node[_KEY], datamodule.spec
        if isinstance(value, ListConfig) and len(value) != spec.num_classes:
            raise UserError(
                f"{path}.{_KEY} has {len(value)} numbers, but {spec.name} has {spec.num_classes} classes: give one for "
                f"each, or {path}.{_KEY}={' or '.join(BY_NAME)}"
            )
        if not isinstance(value, str):
            continue
        if value == _OF_DATA:
            weights: Any = datamodule.class_weights
            node[_KEY] = None if weights is None else list(weights)
            continue
        if value not in BY_NAME:
            raise UserError(
                f"{path}.{_KEY}={value}: give a number for each class, null, or a name; "
                f"{suggest(value, [*BY_NAME, _OF_DATA])}"
            )
        if pixels is None:
            dataset = datamodule.dataset(datamodule.train_split)
            startup_messages.step(f"train: counting the classes of {len(dataset)} masks for {_KEY}={value}")
            counts = count_pixels(dataset, range(len(dataset)))
            pixels = np.stack([counts[index] for index in range(len(dataset))])
        node[_KEY] = BY_NAME[value](pixels)
        pairs = zip(spec.classes, node[_KEY], strict=True)
        startup_messages.step(f"{path}.{_KEY}: {', '.join(f'{name} {significant(weight)}' for name, weight in pairs)}")


def _nodes(node: DictConfig, path: str) -> list[tuple[str, DictConfig]]:
    """Return the mappings below `node` that have class weights, with their dotted paths."""
    own = [(path, node)] if _KEY in node else []
    children = [(f"{path}.{key!s}", node[key]) for key in node if isinstance(node._get_node(key), DictConfig)]
    return own + [found for name, child in children if child is not None for found in _nodes(child, name)]
