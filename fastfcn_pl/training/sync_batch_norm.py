"""Batch norms whose statistics are those of all ranks' images."""

from __future__ import annotations

from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastfcn_pl.models.backbones.synchronized_batch_norm import synchronized


class SyncBatchNorms(LayerSync):
    """Replace the batch norms of torch and timm by synchronized ones during training.

    Lightning's own plugin replaces each subclass of a batch norm by a plain one, and so drops the activations inside of
    timm's. A subclass that is not known keeps its own statistics on each rank, and one line says so.
    """

    def __init__(self) -> None:
        self._originals: dict[str, nn.Module] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace batch norms; parameters and statistics are shared with the original ones."""
        unknown = set()
        for name, module in list(model.named_modules()):
            if not isinstance(module, _BatchNorm) or isinstance(module, nn.SyncBatchNorm):
                continue
            if (replacement := synchronized(module)) is None:
                unknown.add(type(module).__name__)
                continue
            self._originals[name] = module
            model.set_submodule(name, replacement)
        if unknown:
            print(f"each rank has its own statistics in {', '.join(sorted(unknown))}, which cannot be synchronized")
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the original batch norms back, with the trained parameters and statistics."""
        for name, original in self._originals.items():
            trained = model.get_submodule(name)
            original._parameters, original._buffers = trained._parameters, trained._buffers
            model.set_submodule(name, original.train(trained.training))
        self._originals = {}
        return model
