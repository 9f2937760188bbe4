"""Messages for keys that nothing reads, with the keys that were probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher, get_close_matches

from omegaconf import DictConfig

from fastfcn_pl.config.moved_targets import RENAMED_KEYS
from fastfcn_pl.config.precedence import HYDRA_KEYS
from fastfcn_pl.config.schema import CONF_DIR
from fastfcn_pl.core.types import suggest

_OF_VIT_PYRAMID = "only model/backbone=vit_pyramid, for plain vision transformers, has it: use that or leave it out"
_REMEDIES = {
    "model.backbone.output_stride": "this backbone cannot be dilated (a plain vision transformer has one stride): use "
    "another neck than dilated, such as model/neck=jpu, or another backbone, such as model/backbone=resnet50s",
    **{f"model.backbone.{key}": _OF_VIT_PYRAMID for key in ("blocks", "tile_size", "width")},
}
"""Remedies for keys that other options of their group have."""
_SIMILAR = 0.8
"""Similarity of a name to that of a key in another part. Keys of the same part may differ more."""


def no_such_key(key: str, known: Iterable[str], cfg: DictConfig | None = None) -> str:
    """Return the message for `key`; its name may be among the `known` ones, or deeper in the configuration `cfg`."""
    if key in RENAMED_KEYS:
        return f"{key}=... is now {RENAMED_KEYS[key]}=..."
    return f"{key}: no such key; {closest_key(key, known, cfg)}"


def closest_key(key: str, known: Iterable[str], cfg: DictConfig | None) -> str:
    """Return a hint for an unknown key: a key of that name in `cfg`, one of the `known` siblings, or a similar key."""
    if key in _REMEDIES:
        return _REMEDIES[key]
    parent, _, name = key.rpartition(".")
    siblings = [sibling for sibling in known if sibling not in HYDRA_KEYS]
    names: dict[str, list[str]] = {}
    for path in _paths(cfg, "") if isinstance(cfg, DictConfig) else ():
        if path != key:  # a key that was added with +
            names.setdefault(path.rpartition(".")[2], []).append(path)
    nearest = max(siblings, key=lambda sibling: _similarity(name, sibling), default="")
    words = get_close_matches(name, names, n=1, cutoff=max(_SIMILAR, _similarity(name, nearest)))
    paths = [path for word in words if word not in siblings for path in names[word]]
    if not paths:
        return suggest(name, siblings)
    inside = [path for path in paths if path.startswith(f"{parent}.")]
    return f"did you mean {' or '.join(map(_as_typed, (inside or paths)[:3]))}?"


def _similarity(one: str, other: str) -> float:
    return SequenceMatcher(None, other, one).ratio()


def _paths(node: DictConfig, path: str) -> Iterator[str]:
    """Yield the dotted path of each key in a configuration, those of a part before those of its own parts."""
    keys = [str(key) for key in node if key not in (*HYDRA_KEYS, "hydra")]
    yield from (f"{path}{key}" for key in keys)
    for key in keys:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _paths(child, f"{path}{key}.")


def _as_typed(path: str) -> str:
    """Return a path as the command line sets it: a config group such as `model/neck` has slashes."""
    group = path.replace(".", "/")
    return f"{group}=..." if (CONF_DIR / group).is_dir() else path
