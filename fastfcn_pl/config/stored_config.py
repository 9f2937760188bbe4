"""Configurations as they are stored in files: resolved except for values from the environment, without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

from fastfcn_pl.core import redaction

_CHECKPOINT_KEYS = ("model", "protocol", "channels_last")
"""Keys that rebuild a checkpoint. Their values are stored unless the key or the variable is named like a secret."""
_INTERPOLATION = re.compile(r"(\\*)\$\{")
"""Start of an interpolation and the backslashes before it. OmegaConf reads two backslashes there as one."""
_reads: ContextVar[list[tuple[str, str]] | None] = ContextVar("reads of the environment", default=None)

Plain = dict[Any, Any] | list[Any]


def resolve_config(cfg: DictConfig) -> dict[str, Any]:
    """Return `cfg` as plain containers, resolved except for interpolations that read the environment.

    From now on, its secrets are hidden in everything that this process prints.
    """
    OmegaConf.register_new_resolver("oc.env", _read_env, replace=True)
    return _resolve(cfg, OmegaConf.to_container(cfg, resolve=False), ())  # type: ignore[return-value, arg-type]


def storable_config(cfg: DictConfig) -> dict[str, Any]:
    """Return `cfg` as it may be written to a file: resolved, but without secrets and values of the environment."""
    content: dict[str, Any] = redaction.without_secrets(resolve_config(cfg))
    return content


def restore_withheld(stored: dict[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration `stored` with its withheld values, wherever `cfg` would be stored as the same text.

    Other withheld values stay as text: a file must not decide which variables of the environment are read.
    """
    current = resolve_config(cfg)
    content: dict[str, Any] = _restore(stored, redaction.without_secrets(current), current)
    return content


def is_withheld(value: object) -> bool:
    """Tell whether a stored value stands for a secret or for a value of the environment."""
    if isinstance(value, (list, ListConfig)):
        return any(map(is_withheld, value))
    return isinstance(value, str) and (redaction.HIDDEN in value or "${" in value)


def _restore(stored: Any, storable: Any, current: Any) -> Any:
    """Return `stored` with the values of `current` at withheld places where `storable` has the same text."""
    if isinstance(stored, dict):
        keys = storable.keys() if isinstance(storable, dict) else ()
        return {
            key: _restore(item, storable[key], current[key]) if key in keys else _restore(item, None, None)
            for key, item in stored.items()
        }
    if isinstance(stored, list):
        if isinstance(storable, list) and len(storable) == len(stored):
            return [_restore(*items) for items in zip(stored, storable, current, strict=True)]
        return [_restore(item, None, None) for item in stored]
    if not is_withheld(stored):
        return stored
    return current if stored == storable else _escape(stored)


def _resolve(node: DictConfig | ListConfig, raw: Plain, path: tuple[Any, ...]) -> Plain:
    keys = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
    content = {key: _resolve_value(node, key, raw[key], (*path, key)) for key in keys}  # type: ignore[index]
    return content if isinstance(node, DictConfig) else list(content.values())


def _resolve_value(node: DictConfig | ListConfig, key: Any, raw: Any, path: tuple[Any, ...]) -> Any:
    """Return the value of `key` in `node`, or its unresolved form `raw` if it must not be stored."""
    if OmegaConf.is_missing(node, key):
        return raw
    is_interpolation = OmegaConf.is_interpolation(node, key)
    with record_env_reads() as reads:
        value = node[key]
        if OmegaConf.is_config(value):
            raw_value = OmegaConf.to_container(value, resolve=False) if is_interpolation else raw
            value = _resolve(value, raw_value, path)  # type: ignore[arg-type]
        elif is_interpolation:
            value = _escape(value)
    secret = any(map(redaction.is_secret, path))
    if secret and not isinstance(value, (dict, list)):
        redaction.remember(value)
    elif isinstance(value, str):
        redaction.remember_in_text(value)
    if not is_interpolation or not reads or path == ("run_dir",):  # the folder's name shows the value anyway
        return value
    if path[0] in _CHECKPOINT_KEYS and not secret and not any(redaction.is_secret(name) for name, _ in reads):
        return value
    for name, text in reads:
        redaction.remember_variable(name, text)
    return raw


def _escape(value: Any) -> Any:
    """Escape the interpolations in a text, so that OmegaConf reads it literally."""
    return _INTERPOLATION.sub(r"\1\1\\${", value) if isinstance(value, str) else value


def _read_env(name: str, *default: Any) -> str | None:
    """Read an environment variable as `oc.env` does, and record the read."""
    value = oc.env(name, *default)
    if (reads := _reads.get()) is not None and value is not None:
        reads.append((name, value))
    return value


@contextmanager
def record_env_reads() -> Iterator[list[tuple[str, str]]]:
    """Collect the names and values of variables that `oc.env` reads in this context. Contexts nest."""
    outer, reads = _reads.get(), list[tuple[str, str]]()
    token = _reads.set(reads)
    try:
        yield reads
    finally:
        _reads.reset(token)
        if outer is not None:
            outer.extend(reads)
