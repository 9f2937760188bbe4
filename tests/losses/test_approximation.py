"""Distances of features against loops over pixels."""

from __future__ import annotations

import numpy as np
import torch

from fastfcn_pl.losses.approximation import CosineDistance, RelativeMSE

LABELS = torch.empty(0)


def test_the_error_is_relative_to_the_variance_about_the_channels_means() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 4, 5, 6) + torch.arange(4.0).view(4, 1, 1)
    error = variance = 0.0
    approximated, true = features.double().numpy()
    for channel in range(4):
        mean = true[:, channel].mean()
        for a, t in zip(approximated[:, channel].flat, true[:, channel].flat, strict=True):
            error += (a - t) ** 2
            variance += (t - mean) ** 2
    np.testing.assert_allclose(RelativeMSE()(features, LABELS, True).item(), error / variance, rtol=1e-5)


def test_the_mean_of_each_channel_has_an_error_of_one() -> None:
    true = torch.randn(3, 4, 5, 6)
    features = torch.stack([true.mean((0, 2, 3), keepdim=True).expand_as(true), true])
    torch.testing.assert_close(RelativeMSE()(features, LABELS, True), torch.tensor(1.0))


def test_the_cosine_distance_is_averaged_over_pixels() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 4, 5, 6)
    approximated, true = (maps.permute(0, 2, 3, 1).reshape(-1, 4).numpy() for maps in features)
    cosines = [a @ t / np.linalg.norm(a) / np.linalg.norm(t) for a, t in zip(approximated, true, strict=True)]
    np.testing.assert_allclose(CosineDistance()(features, LABELS, True).item(), 1 - np.mean(cosines), rtol=1e-5)


def test_features_without_variance_or_length_give_finite_gradients() -> None:
    features = torch.stack([torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3)]).requires_grad_()
    losses = [loss(features, LABELS, True) for loss in (RelativeMSE(), CosineDistance())]
    torch.stack(losses).sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
