"""The encoding layer against its definition, and its gradient."""

from __future__ import annotations

import torch

from fastfcn_pl.models.heads.encoding import Encoding


def _definition(layer: Encoding, x: torch.Tensor) -> torch.Tensor:
    """Equation 1 of EncNet, with the tensor of all residuals."""
    pixels = x.flatten(2).transpose(1, 2)[:, :, None]
    residuals = pixels - layer.codewords
    assignment = (layer.scale * residuals.square().sum(3)).softmax(2)
    return (assignment[..., None] * residuals).sum(1)


def test_it_is_the_definition() -> None:
    torch.manual_seed(0)
    layer, x = Encoding(6, 4), torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(layer(x), _definition(layer, x))


def test_gradients() -> None:
    torch.manual_seed(0)
    layer = Encoding(3, 2).double()
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    inputs = (x, layer.codewords, layer.scale)

    def call(x: torch.Tensor, codewords: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"codewords": codewords, "scale": scale}, x)

    assert torch.autograd.gradcheck(call, inputs)


def test_autocast_leaves_it_in_float32() -> None:
    torch.manual_seed(0)
    layer, x = Encoding(64, 32), torch.randn(1, 64, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        actual = layer(x.bfloat16())
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, layer(x.bfloat16().float()))
