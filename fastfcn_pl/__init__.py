"""FastFCN (arXiv 1903.11816) on timm backbones: semantic segmentation with PyTorch Lightning and Hydra."""

from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastfcn_pl.config.options import list_options
    from fastfcn_pl.core.types import FeatureInfo
    from fastfcn_pl.engine.api import compose, create_datamodule, create_model, evaluate
    from fastfcn_pl.engine.checkpoint import load
    from fastfcn_pl.engine.hub_repository import push_to_hub
    from fastfcn_pl.tools.predict.predictor import Predictor

__all__ = [
    "FeatureInfo",
    "Predictor",
    "compose",
    "create_datamodule",
    "create_model",
    "evaluate",
    "list_options",
    "load",
    "push_to_hub",
]
__version__ = "0.2.0"

_PLACES = {
    "FeatureInfo": "fastfcn_pl.core.types",
    "Predictor": "fastfcn_pl.tools.predict.predictor",
    "compose": "fastfcn_pl.engine.api",
    "create_datamodule": "fastfcn_pl.engine.api",
    "create_model": "fastfcn_pl.engine.api",
    "evaluate": "fastfcn_pl.engine.api",
    "list_options": "fastfcn_pl.config.options",
    "load": "fastfcn_pl.engine.checkpoint",
    "push_to_hub": "fastfcn_pl.engine.hub_repository",
}

if not TYPE_CHECKING:  # a type checker would take any name to exist

    def __getattr__(name):
        """Import a public name when it is used, since torch takes seconds to load."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return resolve_name(f"{_PLACES[name]}:{name}")

    def __dir__():
        return sorted({*globals(), *__all__})
