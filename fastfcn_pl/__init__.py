"""FastFCN (arXiv 1903.11816) on timm backbones: semantic segmentation with PyTorch Lightning and Hydra."""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastfcn_pl.engine.checkpoint import load
    from fastfcn_pl.tools.predict.predictor import Predictor

__all__ = ["Predictor", "load"]
__version__ = "0.2.0"

_PLACES = {"Predictor": "fastfcn_pl.tools.predict.predictor:Predictor", "load": "fastfcn_pl.engine.checkpoint:load"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used, since torch takes seconds to load."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve_name(_PLACES[name])
