"""Device and precision of `predict` and `benchmark`."""

from __future__ import annotations

import pytest
import torch

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.device import autocast_dtype, find_device


def test_a_device_is_found_by_its_name() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(("name", "message"), [("gpu", "use auto, cpu, cuda"), ("cuda:99", "torch cannot find")])
def test_a_device_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^device={name}: {message}"):
        find_device(name)


def test_precisions_have_lightnings_names() -> None:
    assert autocast_dtype("32-true") is None
    assert autocast_dtype("bf16-mixed") is torch.bfloat16
    with pytest.raises(UserError, match="precision=bf16: no such option; did you mean bf16-mixed"):
        autocast_dtype("bf16")
