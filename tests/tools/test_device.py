"""Device and precision of `predict` and `benchmark`."""

from __future__ import annotations

import pytest
import torch

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.device import autocast_dtype, find_device

MPS = torch.backends.mps.is_available()


def test_a_device_is_found_by_its_name() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_gpu_is_cuda_or_apples(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(torch, "empty", lambda *size, device: found.append(device) or torch.ones(()))
    for cuda, mps in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert find_device("gpu").type == ("cuda" if cuda else "mps")
    assert [device.type for device in found] == ["cuda", "cuda", "mps"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("npu3", "use auto, cpu, gpu, cuda"),
        ("cuda:99", "torch cannot find this device(?: on this machine|, only cuda:0.*); use device=cpu or auto"),
        pytest.param(
            "gpu",
            "torch cannot find this device on this machine",
            marks=pytest.mark.skipif(MPS or torch.cuda.is_available(), reason="there is one"),
        ),
        ("meta", "torch cannot find this device"),
        pytest.param("mps", "torch cannot find this device", marks=pytest.mark.skipif(MPS, reason="it is there")),
    ],
)
def test_a_device_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^device={name}: {message}"):
        find_device(name)


def test_precisions_have_lightnings_names() -> None:
    assert autocast_dtype("32-true") is None
    assert autocast_dtype("bf16-mixed") is torch.bfloat16
    with pytest.raises(UserError, match="precision=bf16: no such option; did you mean bf16-mixed"):
        autocast_dtype("bf16")
