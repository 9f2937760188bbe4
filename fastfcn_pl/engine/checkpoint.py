"""Trained weights, ours or published ones, as data from which their module is rebuilt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fastfcn_pl.config import build, validation
from fastfcn_pl.config.build import BAD_DATA_ERRORS, Config
from fastfcn_pl.config.moved_targets import upgraded
from fastfcn_pl.config.plain_data import plain_data
from fastfcn_pl.config.trust import Trust
from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.io.palette import voc_colors
from fastfcn_pl.engine.checkpoint_file import read_file, state_dict_of, unusable
from fastfcn_pl.engine.checkpoint_location import locate
from fastfcn_pl.models.weights.recognize import Published, recognise
from fastfcn_pl.training.module import SegmentationModule

_NUMBERED = "unknown"
"""The name of the data set of a published network whose data set was not given."""
_MODULE_KEYS = ("state_dict", "hyper_parameters")
"""Keys of a file that describe the module; the others are the state of training."""


def load(path: str | Path, data: str | None = None, trust: Any = ()) -> SegmentationModule:
    """Return the module of a checkpoint of ours or a published one, on the CPU, in eval mode.

    `path` is a file, a run's folder, `last` for the newest run in `runs/`, or a folder or repository of the Hugging
    Face Hub, `<organisation>/<name>[@<revision>]`, that `push_to_hub` wrote. `module.model` is the bare network; the
    module scores and predicts, it does not train. `data` names the data set whose class names and palette a published
    network gets; without it classes are numbered. `trust` lists the packages whose own classes the file may name beyond
    our options, or is true for a file that you trust. Raises UserError if the file is missing, truncated, wants more
    than weights, names a part that is not trusted, or holds a network that we do not know.

    >>> import fastfcn_pl
    >>> module = fastfcn_pl.load("runs/camvid/checkpoints/best.ckpt")
    >>> type(module.model).__name__, module.spec.classes[0]
    ('Segmenter', 'sky')
    """
    return Checkpoint.read(path, trust, build.compose([f"data={data}"]).data if data else None).build()


@dataclass(frozen=True)
class Checkpoint:
    """Weights with the configuration and the classes of the run that wrote them; a published file gets both from us.

    The configuration is data: `trust` says which of its parts may be built. `training_state` holds the remaining
    entries of Lightning's file, such as `loops`, `optimizer_states` and `global_step`, which resuming needs.
    """

    path: str | Path
    state_dict: dict[str, Tensor]
    config: dict[str, Any]
    spec: DatasetSpec
    trust: Trust = field(default_factory=Trust)
    training_state: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path, trust: Any = (), data: Config | None = None) -> Checkpoint:
        """Read a file without running anything in it; raises UserError if it is no checkpoint.

        A published network has the classes of the data set `data`; without it they are numbered.
        """
        path = locate(path)
        content, trust = read_file(path), Trust.of(trust)
        if not _is_ours(content):
            return cls.of_published(_recognise(content, path), path, data)
        try:
            plain = plain_data({key: content["hyper_parameters"][key] for key in ("config", "spec")})
            if not isinstance(plain["config"], dict):
                raise UserError("it holds no configuration")
            state_dict, spec = state_dict_of(content), DatasetSpec.from_dict(plain["spec"])
        except (UserError, *BAD_DATA_ERRORS) as error:
            raise unusable(path, error) from error
        training_state = {key: value for key, value in content.items() if key not in _MODULE_KEYS}
        return cls(path, state_dict, upgraded(plain["config"]), spec, trust, training_state)

    @classmethod
    def of_published(cls, published: Published, path: str | Path, data: Config | None = None) -> Checkpoint:
        """Return a published network as a checkpoint of ours, with the classes of the data set `data`."""
        count = published.architecture.num_classes
        if data is None:
            if count > IGNORE:
                raise unusable(path, UserError(f"it has {count} classes, more than the {IGNORE} of 8-bit labels"))
            spec = DatasetSpec(_NUMBERED, tuple(f"class {i}" for i in range(count)), voc_colors(range(count)))
        # In another memory format than theirs kernels round otherwise: outputs differ by 1e-5, gradients by up to 5e-4.
        cfg = build.compose([*published.architecture.overrides, "channels_last=false", "logger=none", "run_dir=."])
        if data is not None:
            cfg.data = data
            validation.check(cfg)
            spec = build.datamodule(cfg).spec
            replace(spec, bands=None).check_images(spec, f"the published network of {path}")
        if spec.num_classes != count:
            raise UserError(f"the network has {count} classes, but data set {spec.name} has {spec.num_classes}")
        state_dict = {f"model.{name}": tensor for name, tensor in published.state.items()}
        return cls(path, state_dict, build.plain(cfg), spec, Trust.of((), cfg))

    def parts(self, *names: str, changes: Mapping[str, Config | None] | None = None) -> Config:
        """Return parts of the configuration that it was trained with, such as `model` or `data.root`.

        They have the `changes` that this job's configuration makes to them, and nothing that only training needs.
        Raises UserError for a part that names a target that is not trusted.
        """
        try:
            parts = _picked(self.config, names)
            for name, node in (changes or {}).items():
                build.change(parts, name, node)
            build.only_to_predict(parts)
            self.trust.check(parts, self.path)
            return build.configuration(parts)
        except BAD_DATA_ERRORS as error:
            raise unusable(self.path, error) from error

    def build(self, parts: Config | None = None) -> SegmentationModule:
        """Build its network and protocol, or those of `parts`, with its weights, on the CPU, in eval mode."""
        cfg = self.parts(*build.TO_PREDICT) if parts is None else parts
        weights = {name: tensor for name, tensor in self.state_dict.items() if not name.startswith("loss.")}
        try:
            outline = build.outline(cfg, self.spec.num_classes)
            if outline is not None:  # so that no memory is taken for tensors that the file does not hold
                _check_weights(outline, weights, self.path)
            module = build.module_to_predict(cfg, self.spec, self.config)
            _check_weights(module.state_dict(), weights, self.path)
            module.load_state_dict(weights)
        except BAD_DATA_ERRORS as error:
            raise unusable(self.path, error) from error
        return module.eval()

    def load_into(self, module: SegmentationModule) -> None:
        """Load its weights into `module`; raises UserError if one does not fit."""
        _check_weights(module.state_dict(), self.state_dict, self.path)
        try:
            module.load_state_dict(self.state_dict)
        except RuntimeError as error:
            raise unusable(self.path, error) from error

    def check_spec(self, spec: DatasetSpec) -> None:
        """Raise UserError if its classes or bands are not those of `spec`."""
        known = self.spec
        if known.name == _NUMBERED:
            raise UserError(
                f"checkpoint={self.path} holds published weights, which do not name their {known.num_classes} classes: "
                "name the data set that they are for, as data=ade20k data.root=<dir>"
            )
        if known.classes != spec.classes:
            raise UserError(
                f"checkpoint={self.path} knows the {known.num_classes} classes of {known.name}, not the "
                f"{spec.num_classes} of {spec.name}: use the data set that it was trained on"
            )
        known.check_images(spec, f"checkpoint={self.path}")


def read_published(path: str | Path) -> Published:
    """Return the network of a published checkpoint."""
    return _recognise(read_file(path), path)


def _picked(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a copy of the values at the dotted `names`, nested as they are in `config`."""
    picked: dict[str, Any] = {}
    for name in names:
        *parents, last = name.split(".")
        source, target = config, picked
        for key in parents:
            source, target = source[key], target.setdefault(key, {})
        target[last] = source[last]
    return plain_data(picked)


def _check_weights(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise UserError if `given` are not the weights that a network wants, by name and shape."""
    missing, left = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    misfits = sorted(name for name in wanted.keys() & given.keys() if wanted[name].shape != given[name].shape)
    for names, what in ((missing, "are missing"), (left, "are left over"), (misfits, "have another shape")):
        if names:
            raise UserError(f"checkpoint={path}: {len(names)} tensors {what}: {', '.join(names[:8])}")


def _is_ours(content: Any) -> bool:
    parameters = content.get("hyper_parameters") if isinstance(content, dict) else None
    return isinstance(parameters, dict) and "spec" in parameters


def _recognise(content: Any, path: str | Path) -> Published:
    try:
        return recognise(state_dict_of(content))
    except (UserError, *BAD_DATA_ERRORS) as error:
        raise unusable(path, error) from error
