"""A configuration as files keep it: resolved, but for what it takes from the environment, and without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

from fastfcn_pl.core import redaction

_NETWORK = ("model", "protocol", "channels_last")
"""Parts that rebuild a checkpoint: they are kept by value if neither key nor variable is named like a secret."""
_INTERPOLATION = re.compile(r"(\\*)\$\{")
"""The beginning of an interpolation with the backslashes before it, each two of which OmegaConf takes for one."""
_reads: ContextVar[list[tuple[str, str]] | None] = ContextVar("reads of the environment", default=None)

Plain = dict[Any, Any] | list[Any]


def settled(cfg: DictConfig) -> dict[str, Any]:
    """Return `cfg` as plain containers in which only those interpolations are left that read the environment.

    The secrets that it holds are hidden from then on in everything that this process prints.
    """
    OmegaConf.register_new_resolver("oc.env", _read, replace=True)
    return _settled(cfg, OmegaConf.to_container(cfg, resolve=False), ())  # type: ignore[return-value, arg-type]


def stored(cfg: DictConfig) -> dict[str, Any]:
    """Return `cfg` as it may stand in a file, see the module."""
    content: dict[str, Any] = redaction.without_secrets(settled(cfg))
    return content


def refilled(kept: dict[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """Return the stored configuration `kept` with the values that were withheld, where `cfg` would store the same.

    Elsewhere they stay withheld, as text: the environment is not asked for what a file names.
    """
    here = settled(cfg)
    content: dict[str, Any] = _refilled(kept, redaction.without_secrets(here), here)
    return content


def at(content: Any, path: str) -> Any:
    """Return the value at a dotted path in plain containers."""
    for part in path.split("."):
        content = content[int(part) if isinstance(content, list) else part]
    return content


def is_withheld(value: object) -> bool:
    """Tell whether a value of a stored configuration is a secret, or was in the environment of its run."""
    if isinstance(value, (list, ListConfig)):
        return any(map(is_withheld, value))
    return isinstance(value, str) and (redaction.HIDDEN in value or "${" in value)


def _refilled(kept: Any, shown: Any, here: Any) -> Any:
    if isinstance(kept, dict):
        both = shown if isinstance(shown, dict) else {}
        return {key: _refilled(item, both.get(key), here[key] if key in both else None) for key, item in kept.items()}
    if isinstance(kept, list):
        alike = isinstance(shown, list) and len(shown) == len(kept)
        return [_refilled(x, shown[i] if alike else None, here[i] if alike else None) for i, x in enumerate(kept)]
    if not is_withheld(kept):
        return kept
    return here if kept == shown else _literal(kept)


def _settled(node: DictConfig | ListConfig, raw: Plain, path: tuple[Any, ...]) -> Plain:
    keys = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
    content = {key: _value(node, key, raw[key], (*path, key)) for key in keys}  # type: ignore[index]
    return content if isinstance(node, DictConfig) else list(content.values())


def _value(node: DictConfig | ListConfig, key: Any, raw: Any, path: tuple[Any, ...]) -> Any:
    if OmegaConf.is_missing(node, key):
        return raw
    is_interpolation = OmegaConf.is_interpolation(node, key)
    with recorded() as reads:
        value = node[key]
        if OmegaConf.is_config(value):
            inside = OmegaConf.to_container(value, resolve=False) if is_interpolation else raw
            value = _settled(value, inside, path)  # type: ignore[arg-type]
        elif is_interpolation:
            value = _literal(value)
    secret = any(map(redaction.is_secret, path))
    if secret and not isinstance(value, (dict, list)):
        redaction.remember(value)
    elif isinstance(value, str):
        redaction.remember_in_text(value)
    if not is_interpolation or not reads or path == ("run_dir",):  # the folder's name says it anyway
        return value
    if path[0] in _NETWORK and not secret and not any(redaction.is_secret(name) for name, _ in reads):
        return value
    for name, text in reads:
        redaction.remember_variable(name, text)
    return raw


def _literal(value: Any) -> Any:
    """Return a text that is no interpolation, whatever it looks like."""
    return _INTERPOLATION.sub(r"\1\1\\${", value) if isinstance(value, str) else value


def _read(name: str, *default: Any) -> str | None:
    """Read a variable of the environment, as `oc.env` does, and remember that it was read."""
    value = oc.env(name, *default)
    if (reads := _reads.get()) is not None and value is not None:
        reads.append((name, value))
    return value


@contextmanager
def recorded() -> Iterator[list[tuple[str, str]]]:
    """Collect what is read of the environment meanwhile; what collects around it hears of it, too."""
    around, reads = _reads.get(), list[tuple[str, str]]()
    token = _reads.set(reads)
    try:
        yield reads
    finally:
        _reads.reset(token)
        if around is not None:
            around.extend(reads)
