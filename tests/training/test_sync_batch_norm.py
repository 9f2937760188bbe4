"""Synchronized batch norms compute what the original ones do, and give them back.

Torch synchronizes on GPUs only; in eval mode the modules also run on a CPU.
"""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from fastfcn_pl.training.sync_batch_norm import SyncBatchNorms


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "mobilenetv3_small_050"])
def test_activations_inside_of_norms_stay(name: str) -> None:
    """Norms of efficientnet and mobilenet contain an activation."""
    torch.manual_seed(0)
    network = timm.create_model(name, features_only=True, pretrained=False).eval()
    kinds = {path: type(module) for path, module in network.named_modules()}
    images = torch.randn(2, 3, 64, 64)
    plugin = SyncBatchNorms()
    with torch.no_grad():
        expected = network(images)
        converted = plugin.apply(network)
        assert any(isinstance(module, nn.SyncBatchNorm) for module in converted.modules())
        torch.testing.assert_close(converted(images), expected)
        for parameter in converted.parameters():
            parameter.mul_(1.01)  # a step of training
        trained = converted(images)
        reverted = plugin.revert(converted)
        torch.testing.assert_close(reverted(images), trained)
    assert {path: type(module) for path, module in reverted.named_modules()} == kinds


class _OwnNorm(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_norm_of_ones_own_stays_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    network = nn.Sequential(_OwnNorm(3), nn.BatchNorm2d(3))
    converted = SyncBatchNorms().apply(network)
    assert [type(module) for module in converted] == [_OwnNorm, nn.SyncBatchNorm]
    assert "each rank has its own statistics in _OwnNorm" in capsys.readouterr().out
