"""Validation of a configuration's keys and values against the signatures of their `_target_`s."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from fastfcn_pl.config.precedence import HYDRA_KEYS
from fastfcn_pl.config.stored_config import is_withheld
from fastfcn_pl.config.unknown_key import closest_key, no_such_key
from fastfcn_pl.core.types import UserError, suggest

_CONTAINERS = ("callbacks", "diagnostics", "logger")  # nodes whose children are named by the user
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "None": "null", "NoneType": "null"}


def check(cfg: DictConfig) -> None:
    """Check every key of `cfg` against the signature of its target; raises UserError for the first mismatch.

    Classes and functions of this package need exactly their keyword-only parameters. Others take any subset of theirs.
    """
    for name in _CONTAINERS:
        for child, node in (cfg.get(name) or {}).items():
            if node and "_target_" not in node:
                known = [key for key, sibling in cfg[name].items() if sibling and "_target_" in sibling]
                raise UserError(f"{name}.{child} has no _target_; {suggest(child, known)}")
    schema = OmegaConf.get_type(cfg)
    if is_dataclass(schema):
        known = [field.name for field in fields(schema)]
        for key in cfg:
            if key not in known:  # added with +, of which Hydra does not ask if anything reads it
                raise UserError(no_such_key(str(key), known, cfg))
    for path, node in _targets(cfg, ""):
        _check_node(path, node, cfg)


def _targets(node: DictConfig | ListConfig, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Yield the nodes with a `_target_`, outermost first, with their dotted paths."""
    if isinstance(node, DictConfig) and "_target_" in node:
        yield path, node
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_config(node[key]):
            yield from _targets(node[key], f"{path}.{key!s}" if path else str(key))


def _check_node(path: str, node: DictConfig, cfg: DictConfig) -> None:
    target = import_target(path, node["_target_"])
    allowed, required = parameters(target)
    keys = [str(key) for key in node if key not in HYDRA_KEYS]
    for key in keys:
        if OmegaConf.is_missing(node, key):
            raise UserError(f"{path}.{key} has no value: set it with {path}.{key}=...")
        if allowed is not None and key not in allowed:
            hint = closest_key(f"{path}.{key}", allowed, cfg)
            raise UserError(f"{path}.{key}: {node['_target_']!s} has no such parameter; {hint}")
        if isinstance(node[key], str) and (kind := _numeric_kind(target, key)):
            raise UserError(f"{path}.{key}={node[key]}: use {kind}")
        if isinstance(node[key], (int, float)) and _takes_only_lists(target, key):
            raise UserError(f"{path}.{key}={node[key]}: use a list, such as [{node[key]}]")
        if is_withheld(node[key]):
            raise UserError(
                f"{path}.{key} is {node[key]} in the run's files, which store no secrets and no environment variables: "
                f"set it again with {path}.{key}=..."
            )
    missing = sorted(required.difference(keys))
    if missing:
        raise UserError(f"{path}.{missing[0]} is not set, and {node['_target_']} needs it: add it to the YAML")


def parameters(target: Callable[..., Any]) -> tuple[set[str] | None, set[str]]:
    """Return the names of the parameters that YAML may set (None: any) and of those that it must set.

    YAML sets the keyword-only parameters of this package's classes, since code passes the others. It may set any named
    parameter of other libraries.
    """
    signature = list(inspect.signature(target).parameters.values())
    required = {p.name for p in signature if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    if target.__module__.startswith("fastfcn_pl."):
        return {p.name for p in signature if p.kind is p.KEYWORD_ONLY}, required
    if any(p.kind is p.VAR_KEYWORD for p in signature):
        return None, required
    return {p.name for p in signature if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}, required


def _numeric_kind(target: Callable[..., Any], name: str) -> str | None:
    """Describe the values of a parameter that takes only numbers, booleans or null; None for any other parameter."""
    words = set(re.findall(r"\w+", _annotation(target, name))) - {"Optional", "Union"}
    if not words <= _KINDS.keys():
        return None
    if "float" in words:
        words.discard("int")
    return " or ".join(dict.fromkeys(kind for word, kind in _KINDS.items() if word in words)) or None


def _takes_only_lists(target: Callable[..., Any], name: str) -> bool:
    return re.fullmatch(r"(Sequence|list|tuple)\[[^|]*\]( \| None)?", _annotation(target, name)) is not None


def _annotation(target: Callable[..., Any], name: str) -> str:
    """Return the annotation of a parameter as text, which is empty if there is none."""
    parameter = inspect.signature(target).parameters.get(name)
    return inspect.formatannotation(parameter.annotation).strip("'") if parameter else ""


def import_target(path: str, target: str) -> Callable[..., Any]:
    """Import the `_target_` of the node at `path`; raises UserError if that fails."""
    try:
        return get_object(target)
    except Exception as error:  # importing runs the user's file, which may raise anything
        reason = [*str(error.__cause__ or error).splitlines(), type(error).__name__][0]
        raise UserError(
            f"{path}._target_={target} cannot be imported ({reason}): check the spelling and PYTHONPATH"
        ) from error
