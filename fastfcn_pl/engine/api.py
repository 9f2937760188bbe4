"""The framework from Python: networks, data sets and configurations by the names of options, and scores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config import build, options, validation
from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.engine import scoring
from fastfcn_pl.engine.error_messages import one_line
from fastfcn_pl.evaluation.protocols import Protocol
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.training.module import SegmentationModule


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a command (`train`, `evaluate`, ...) or study, as its command line does.

    Raises UserError for a name, option or key that does not exist.

    >>> import fastfcn_pl
    >>> cfg = fastfcn_pl.compose("train", ["model/neck=fpn", "data.batch_size=4"])
    >>> cfg.model.neck.width, cfg.data.batch_size
    (256, 4)
    """
    with _in_one_line():
        return options.compose(name, overrides)


# Options are typed Any since type checkers match `**{"neck.width": 256}` with every parameter.
def create_model(
    recipe: str = "fastfcn",
    /,
    *,
    num_classes: int,
    pretrained: Any = None,
    backbone: Any = None,
    neck: Any = None,
    head: Any = None,
    aux_head: Any = None,
    **keys: Any,
) -> Segmenter:
    """Build a recipe of `conf/model`, with other parts by the names of their options, and with other values of `keys`.

    `pretrained` is true (ImageNet weights of the backbone), a file, a folder, `hf-hub:<name>`, or false; None keeps the
    recipe's choice. Raises UserError for a name or key that does not exist.

    >>> import fastfcn_pl, torch
    >>> model = fastfcn_pl.create_model(
    ...     "fastfcn_encnet_r50", num_classes=19, pretrained=False, backbone="resnet18", **{"neck.width": 32}
    ... )
    >>> model.eval()(torch.zeros(1, 3, 64, 96)).logits.shape
    torch.Size([1, 19, 8, 12])
    """
    if num_classes < 1:
        raise UserError(f"num_classes={num_classes}: give 1 or more")
    parts = {"model": recipe, "model/backbone": backbone, "model/neck": neck, "model/head": head}
    cfg = _chosen({**parts, "model/aux_head": aux_head})
    with _in_one_line():
        _set(cfg.model, keys if pretrained is None else {"backbone.pretrained": pretrained, **keys})
        validation.check(OmegaConf.create({"model": cfg.model}))
        return build.model(cfg, num_classes)


def create_datamodule(name: str, /, **keys: Any) -> SegmentationDataModule:
    """Build a data set of `conf/data`, whose `spec` names its classes, with other values of `keys`, such as `root`.

    Its samples hold `image`, uint8 `(B, 3, H, W)`, and `target`, class indices `(B, H, W)` with 255 for ignored pixels.
    Raises UserError for a name or key that does not exist.

    >>> import fastfcn_pl
    >>> data = fastfcn_pl.create_datamodule("shapes", size=64, batch_size=2, num_workers=0)
    >>> batch = next(iter(data.train_dataloader()))
    >>> batch["image"].shape, batch["target"].shape
    (torch.Size([2, 3, 64, 64]), torch.Size([2, 64, 64]))
    """
    cfg = _chosen({"data": name})
    with _in_one_line():
        _set(cfg.data, keys)
        validation.check(OmegaConf.create({"data": cfg.data}))
        return build.datamodule(cfg)


def evaluate(
    module: SegmentationModule | Segmenter,
    datamodule: SegmentationDataModule,
    *,
    split: str = "val",
    protocol: str | Protocol | None = None,
    accelerator: str = "auto",
) -> dict[str, Any]:
    """Score a network on a split, and return what `results.json` of a run holds; shares are fractions.

    `protocol` is an option of `conf/protocol`, or a function; None is the module's own, `native` for a bare network.
    Raises UserError if the network has other classes than the data.

    >>> import fastfcn_pl
    >>> data = fastfcn_pl.create_datamodule("shapes", val_images=2, size=64, num_workers=0)
    >>> model = fastfcn_pl.create_model(num_classes=data.spec.num_classes, pretrained=False, backbone="resnet18")
    >>> results = fastfcn_pl.evaluate(model, data, protocol="sliding", accelerator="cpu")
    >>> results["images"], results["protocol"], 0 <= results["mIoU"] <= 1
    (2, 'sliding', True)
    """
    if isinstance(module, Segmenter):
        module = _scorer(module, datamodule, protocol or "native")
    elif module.spec.classes != datamodule.spec.classes:
        raise UserError(
            f"the network knows the {module.spec.num_classes} classes of {module.spec.name}, not the "
            f"{datamodule.spec.num_classes} of {datamodule.spec.name}: use the data set that it was trained on"
        )
    else:
        module.spec.check_images(datamodule.spec, "the network")
    own = module.protocol
    module.protocol = own if protocol is None else _protocol(protocol)
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        return scoring.score(trainer, module, datamodule, split)
    finally:
        module.protocol = own


def _scorer(model: Segmenter, datamodule: SegmentationDataModule, protocol: str | Protocol) -> SegmentationModule:
    if model.num_classes != datamodule.spec.num_classes:
        raise UserError(
            f"the network has {model.num_classes} classes, and {datamodule.spec.name} has "
            f"{datamodule.spec.num_classes}: create it with num_classes={datamodule.spec.num_classes}"
        )
    return SegmentationModule(
        model,
        loss=None,
        protocol=_protocol(protocol),
        spec=datamodule.spec,
        make_optimizer=None,
        make_scheduler=None,
        channels_last=False,
        compile=False,
        config={},
    )


def _protocol(protocol: str | Protocol) -> Protocol:
    return build.build(_chosen({"protocol": protocol}).protocol) if isinstance(protocol, str) else protocol


def _chosen(groups: Mapping[str, str | None]) -> DictConfig:
    """Compose the configuration of training with an option of each of `groups`, None for the default one."""
    for group, name in groups.items():
        if name is not None and name not in (known := options.list_options(group)):
            raise UserError(f"{group}={name}: no such option; {suggest(str(name), known)}")
    with _in_one_line():
        return options.compose("train", [f"{group}={name}" for group, name in groups.items() if name is not None])


def _set(node: DictConfig, values: Mapping[str, Any]) -> None:
    """Set values at dotted keys of `node`; raises UserError for the first key that does not exist."""
    for key, value in values.items():
        *_, last = names = key.split(".")
        _holder(node, names, key)[last] = os.fspath(value) if isinstance(value, os.PathLike) else value


def _holder(node: Any, names: Sequence[str], key: str) -> DictConfig:
    """Return the node below `node` that holds the last of `names`."""
    known = [str(name) for name in node if not str(name).startswith("_")] if isinstance(node, DictConfig) else []
    if names[0] not in known:
        raise UserError(f"{key}: no such key; {suggest(names[0], known)}")
    return node if len(names) == 1 else _holder(node[names[0]], names[1:], key)


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Raise errors of a configuration that the user can fix as UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (line := one_line(error)) is None:
            raise
        raise UserError(line) from error
