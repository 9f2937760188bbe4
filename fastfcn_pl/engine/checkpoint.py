"""Trained weights, ours or those of others: a file is data, and rebuilds the module that it holds the weights of."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastfcn_pl.config import build, validation
from fastfcn_pl.config.build import Config
from fastfcn_pl.config.trust import Trust, plain_data
from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.io.palette import voc_colors
from fastfcn_pl.models.weights.recognize import Published, recognise
from fastfcn_pl.models.weights.state_dict_io import HARMLESS
from fastfcn_pl.training.module import SegmentationModule

_MOST_CLAIMED = 2**30
"""Bytes of tensors that a file may hold as views of fewer values."""
_NUMBERED = "unknown"
"""The name of the data set of a published network whose data set was not said."""


def load(path: str | Path, data: str | None = None, trust: Any = ()) -> SegmentationModule:
    """Return the module of a checkpoint of ours or a published one, on the CPU, in eval mode.

    `module.model` is the bare network; the module scores and predicts, it does not train. `data` names the data set
    whose class names and palette a published network gets; without it classes are numbered. `trust` lists the packages
    whose own classes the file may name beyond our options, or is true for a file that you trust. Raises UserError if
    the file is missing, truncated, wants more than weights, names a part that is not trusted, or is of a network that
    we do not know.
    """
    return Checkpoint.read(path, trust, build.compose([f"data={data}"]).data if data else None).build()


@dataclass(frozen=True)
class Checkpoint:
    """A file of trained weights, ours or a published one: data, of which `trust` says what may be built.

    `content` is what Lightning wrote; a published one's is as if it were ours.
    """

    path: str | Path
    content: dict[str, Any]
    spec: DatasetSpec
    trust: Trust

    @classmethod
    def read(cls, path: str | Path, trust: Any = (), data: Config | None = None) -> Checkpoint:
        """Read a file; nothing that is in it is run.

        A published network has the classes of the data set `data`; without it they are numbered.
        """
        content = _read_file(path)
        if not _is_ours(content):
            return cls.of_published(_recognise(content, path), path, data)
        try:
            _state_dict(content)
            plain = plain_data({key: content["hyper_parameters"][key] for key in ("config", "spec")})
            spec = DatasetSpec.from_dict(plain["spec"])
            if not isinstance(plain["config"], dict):
                raise UserError("it holds no configuration")
        except (UserError, *build.NONSENSE) as error:
            raise unusable(path, error) from error
        return cls(path, {**content, "hyper_parameters": plain}, spec, Trust.of(trust))

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
        if spec.num_classes != count:
            raise UserError(f"the network has {count} classes, but data set {spec.name} has {spec.num_classes}")
        content = {
            "state_dict": {f"model.{name}": tensor for name, tensor in published.state.items()},
            "hyper_parameters": {"config": build.plain(cfg), "spec": spec.to_dict()},
        }
        return cls(path, content, spec, Trust.of((), cfg))

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration of the run that wrote it, as it stands: `trust` says what may be used of it."""
        return self.content["hyper_parameters"]["config"]

    def parts(self, *names: str, changes: Mapping[str, Config | None] | None = None) -> Config:
        """Return parts of the configuration that it was trained with, such as `model` or `data.root`.

        They have the `changes` that this job's configuration makes to them, and nothing that only training needs.
        Raises UserError for a part that names what is not trusted.
        """
        try:
            found = _picked(self.config, names)
            for name, node in (changes or {}).items():
                build.change(found, name, node)
            build.only_to_predict(found)
            self.trust.check(found, self.path)
            return build.configuration(found)
        except build.NONSENSE as error:
            raise unusable(self.path, error) from error

    def build(self, parts: Config | None = None) -> SegmentationModule:
        """Build its network and protocol, or those of `parts`, with its weights, on the CPU, in eval mode."""
        cfg = self.parts(*build.TO_PREDICT) if parts is None else parts
        given = {name: tensor for name, tensor in self.content["state_dict"].items() if not name.startswith("loss.")}
        try:
            outline = build.outline(cfg, self.spec.num_classes)
            if outline is not None:  # so that no memory is taken for what the file does not hold
                _check_weights(outline, given, self.path)
            module = build.module_to_predict(cfg, self.spec, self.config)
            _check_weights(module.state_dict(), given, self.path)
            module.load_state_dict(given)
        except build.NONSENSE as error:
            raise unusable(self.path, error) from error
        return module.eval()

    def load_into(self, module: SegmentationModule) -> None:
        """Load its weights into `module`; raises UserError if one does not fit."""
        given = self.content["state_dict"]
        _check_weights(module.state_dict(), given, self.path)
        try:
            module.load_state_dict(given)
        except RuntimeError as error:
            raise unusable(self.path, error) from error

    def check_classes(self, spec: DatasetSpec) -> None:
        """Raise UserError if it is of other classes than `spec`."""
        known = self.spec
        if known.name == _NUMBERED:
            raise UserError(
                f"checkpoint={self.path} is of published weights, which say nothing of their {known.num_classes} "
                "classes: name the data set that they are for, as data=ade20k data.root=<dir>"
            )
        if known.classes != spec.classes:
            raise UserError(
                f"checkpoint={self.path} knows the {known.num_classes} classes of {known.name}, not the "
                f"{spec.num_classes} of {spec.name}: take the data set that it was trained for"
            )


def _picked(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        *parents, last = name.split(".")
        source, target = config, found
        for key in parents:
            source, target = source[key], target.setdefault(key, {})
        target[last] = source[last]
    return plain_data(found)


def _check_weights(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Raise UserError if `given` are not the weights that a network wants, by name and shape."""
    missing, left = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    misfits = sorted(name for name in wanted.keys() & given.keys() if wanted[name].shape != given[name].shape)
    for names, what in ((missing, "are missing"), (left, "are left over"), (misfits, "have another shape")):
        if names:
            raise UserError(f"checkpoint={path}: {len(names)} tensors {what}: {', '.join(names[:8])}")


def read_published(path: str | Path) -> Published:
    """Return the network of a published checkpoint."""
    return _recognise(_read_file(path), path)


def _is_ours(content: Any) -> bool:
    ours = content.get("hyper_parameters") if isinstance(content, dict) else None
    return isinstance(ours, dict) and "spec" in ours


def _recognise(content: Any, path: str | Path) -> Published:
    try:
        return recognise(_state_dict(content))
    except (UserError, *build.NONSENSE) as error:
        raise unusable(path, error) from error


def unusable(path: str | Path, error: Exception) -> UserError:
    """Return a checkpoint's mistake in one line."""
    reason = str(error)
    if not isinstance(error, UserError):
        cause = f"{type(error).__name__}: {' '.join(reason.split())}"
        reason = f"it is damaged, or it or the code of a part was changed ({cause})"
    return UserError(f"checkpoint={path} cannot be used: {reason}")


def _read_file(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise UserError(f"checkpoint={path}: no such file; a run's are in its folder checkpoints/")
    _check_archive(Path(path))
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not a checkpoint makes the reader fail in any way
        reason = "it is truncated, not a torch file, or wants more than weights (if you trust it, save its state_dict)"
        raise UserError(f"checkpoint={path} cannot be read: {reason}") from error


def _check_archive(path: Path) -> None:
    """Raise UserError if a file claims to hold more than its size: torch writes archives without compression."""
    if not zipfile.is_zipfile(path):
        return
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:  # torch says what is bad
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise UserError(
                f"checkpoint={path} cannot be read: it claims to hold more than its size; save it with torch"
            )


def _state_dict(content: Any) -> dict[str, torch.Tensor]:
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError("it holds no state dict")
    if strange := [name for name, tensor in state.items() if tensor.layout is not torch.strided or tensor.is_meta]:
        raise UserError(f"{strange[0]} is no tensor with a value in each place")
    if sum(map(_claimed, state.values())) > _MOST_CLAIMED:
        raise UserError("its state dict claims more values than the file holds")
    return state


def _claimed(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor that its file does not hold, since one value of it stands for many."""
    return max(0, tensor.numel() * tensor.element_size() - tensor.untyped_storage().nbytes())
