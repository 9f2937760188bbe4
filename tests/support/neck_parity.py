"""Reference outputs and gradients of published necks, decoders and upsamplers: `parity/necks` of the shared folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Case = dict[str, Any]


def cases(file: Path) -> dict[str, Case]:
    """Return the cases in a file by name, each with the state dict that its outputs were computed with."""
    spec = importlib.util.spec_from_file_location("weights", file.parent.parent / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    found: dict[str, Case] = torch.load(file, weights_only=True)["cases"]
    for case in found.values():
        state = weights.fill(case["shapes"])
        case["state"] = {name: tensor * case["multiply"].get(name, 1) for name, tensor in state.items()}
    return found


def check(
    module: nn.Module,
    case: Case,
    rename: Mapping[str, str] | None = None,
    inputs: Callable[..., Sequence[Any]] = lambda *given: given,
    *,
    call: Callable[..., Any] = nn.Module.__call__,
    buffers: Collection[str] = ("running_mean", "running_var", "num_batches_tracked"),
    train_tolerance: float = 1e-3,
) -> None:
    """Assert that `module` has the outputs, the loss and the gradients of a case, in eval and in training.

    `rename` maps our names of tensors, or the modules that hold them, to the published names. `inputs` turns the
    published inputs to our arguments, and `call(module, *arguments)` returns the published outputs. A linear layer's
    weight may be that of a 1x1 convolution. `buffers` are the kinds of statistics to compare after training, and
    `train_tolerance` is that of gradients in training, as a share of their norm.
    """
    names = {ours: _published_name(ours, rename or {}) for ours in module.state_dict()}
    # Paddle's batch norms count no batches.
    published = {o: name for o, name in names.items() if name in case["state"] or "num_batches_tracked" not in name}
    assert sorted(published.values()) == sorted(case["state"])
    shapes = {ours: tensor.shape for ours, tensor in module.state_dict().items()}
    state = {ours: case["state"][name].reshape(shapes[ours]) for ours, name in published.items()}
    module.load_state_dict(module.state_dict() | state)
    for mode, tolerance in (("eval", 1e-3), ("train", train_tolerance)):
        module.train(mode == "train").zero_grad()
        given = [x.requires_grad_() for x in _random(case["input_shapes"], 0)]
        _check_outputs(call(module, *inputs(*given)), case, mode)
        _check_gradients(module, given, case, mode, published, tolerance)
    after = case["train"].get("buffers_after", {})
    for ours, buffer in module.named_buffers():
        if (name := names[ours]) in after and name.rpartition(".")[2] in buffers:
            torch.testing.assert_close(buffer, after[name].to(buffer), rtol=1e-4, atol=1e-5)


def _published_name(ours: str, rename: Mapping[str, str]) -> str:
    if ours in rename:
        return rename[ours]
    owner, _, tensor = ours.rpartition(".")
    return f"{rename.get(owner, owner)}.{tensor}"


def _check_outputs(outputs: Tensor | Sequence[Tensor], case: Case, mode: str) -> None:
    """Compare the outputs and the loss, and compute the gradients of the loss."""
    expected = case[mode]
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    assert [list(output.shape) for output in outputs] == [list(shape) for shape in case["output_shapes"]]
    for i, output in enumerate(outputs):
        step, channels = case["output_pixel_step"][i], case["output_first_channels"][i]
        difference = (output[:, :channels, ::step, ::step] - expected["outputs"][i]).abs().max()
        assert difference <= 1e-4 * expected["output_std"][i], f"output {i} in {mode}"
    factors = _random(case["output_shapes"], 1)
    loss = torch.stack([(output * factor).sum() for output, factor in zip(outputs, factors, strict=True)]).sum()
    spread = sum(float(factor.norm()) * std for factor, std in zip(factors, expected["output_std"], strict=True))
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-4 * spread)
    loss.backward()


def _check_gradients(
    module: nn.Module, given: Sequence[Tensor], case: Case, mode: str, published: Mapping[str, str], tolerance: float
) -> None:
    expected = case[mode]
    zero, least = case.get("zero_gradients", {}).get(mode, ()), 1e-4 * case["grad_scale"][mode]
    for ours, parameter in module.named_parameters():
        name = published[ours]
        norm, dot = expected["grad_norms"][name], expected["grad_dots"][name]
        if name not in zero and norm >= least:
            shape = case["state"][name].shape
            _check_gradient(parameter.grad, shape, norm, dot, tolerance, f"{name} in {mode}")
    for i, x in enumerate(given):
        norm, dot = expected["input_grad_norms"][i], expected["input_grad_dots"][i]
        _check_gradient(x.grad, x.shape, norm, dot, tolerance, f"input {i} in {mode}")


def _check_gradient(
    gradient: Tensor | None, shape: torch.Size, norm: float, dot: float, tolerance: float, name: str
) -> None:
    assert gradient is not None, name
    (direction,) = _random([shape], 2)
    # A dot product with noise has the spread of the norm.
    actual = float(gradient.norm()), float((gradient.reshape(shape) * direction).sum())
    assert actual == pytest.approx((norm, dot), rel=0, abs=tolerance * norm), name


def _random(shapes: Sequence[Sequence[int]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in shapes]
