"""Switches of fast paths: one at a time, all of them, and inside of torch.func."""

from __future__ import annotations

import pytest
import torch

from fastfcn_pl.acceleration.cpu.prepacked_conv import PackedConv
from fastfcn_pl.acceleration.fold import FoldedNorm
from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.ops.fast_paths import FAST_PATHS, accelerates, is_enabled, without
from tests.support.acceleration_parts import network


@pytest.mark.parametrize("path", FAST_PATHS)
def test_one_path_is_turned_off_for_a_while(path: str) -> None:
    with without(path):
        assert [name for name in FAST_PATHS if not is_enabled(name)] == [path]
        with without(path, "fold"):
            assert not is_enabled(path)
        assert [name for name in FAST_PATHS if not is_enabled(name)] == [path]
    assert all(map(is_enabled, FAST_PATHS))


@pytest.mark.parametrize(
    ("off", "folds", "packs"), [((), True, True), (("fold",), False, True), (("packed convolution",), True, False)]
)
def test_a_network_is_made_without_it(off: tuple[str, ...], folds: bool, packs: bool) -> None:
    model, x = network([("chain", "plain", "batch", "relu in place")]), torch.randn(1, 3, 64, 96)
    with without(*off):
        fast = optimize_for_inference(model, device=torch.device("cpu"))
    kinds = {type(module) for module in fast.modules()}
    assert (FoldedNorm in kinds, PackedConv in kinds) == (folds, packs)
    with torch.no_grad():
        torch.testing.assert_close(fast(x).logits, model(x).logits, atol=1e-4, rtol=1e-4)


def test_a_path_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AssertionError, match="no fast paths"), without("warp"):
        pass


@pytest.mark.parametrize("value", ["0", "false", "No", " off "])
def test_the_environment_turns_all_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert accelerates()
    assert not accelerates(False)
    monkeypatch.setenv("FASTFCN_ACCELERATE", value)
    assert not accelerates()
    monkeypatch.setenv("FASTFCN_ACCELERATE", "1")
    assert accelerates()


def test_transforms_of_torch_func_see_plain_operations() -> None:
    seen = []
    torch.func.grad(lambda x: seen.append(is_enabled("fold")) or x.sum())(torch.zeros(2))
    assert seen == [False]
