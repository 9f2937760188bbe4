"""Reference outputs and gradients of published necks, decoders and upsamplers: `parity/necks` of the shared folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
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
) -> None:
    """Assert that `module` has the outputs, the loss and the gradients of a case, in eval and in training.

    `rename` maps our names of tensors, or the modules that hold them, to the published names. `inputs` turns the
    published inputs to our arguments. A linear layer's weight may be that of a 1x1 convolution.
    """
    published = {ours: _published_name(ours, rename or {}) for ours in module.state_dict()}
    assert sorted(published.values()) == sorted(case["state"])
    shapes = {ours: tensor.shape for ours, tensor in module.state_dict().items()}
    module.load_state_dict({ours: case["state"][name].reshape(shapes[ours]) for ours, name in published.items()})
    for mode in ("eval", "train"):
        _check_mode(module.train(mode == "train"), case, mode, published, inputs)


def _published_name(ours: str, rename: Mapping[str, str]) -> str:
    if ours in rename:
        return rename[ours]
    owner, _, tensor = ours.rpartition(".")
    return f"{rename.get(owner, owner)}.{tensor}"


def _check_mode(
    module: nn.Module, case: Case, mode: str, published: Mapping[str, str], inputs: Callable[..., Sequence[Any]]
) -> None:
    expected, given = case[mode], [x.requires_grad_() for x in _random(case["input_shapes"], 0)]
    module.zero_grad()
    outputs = module(*inputs(*given))
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
    zero, least = case.get("zero_gradients", {}).get(mode, ()), 1e-4 * case["grad_scale"][mode]
    for ours, parameter in module.named_parameters():
        name = published[ours]
        if name not in zero and expected["grad_norms"][name] >= least:
            shape = case["state"][name].shape
            _check_gradient(
                parameter.grad, shape, expected["grad_norms"][name], expected["grad_dots"][name], f"{name} in {mode}"
            )
    for i, x in enumerate(given):
        _check_gradient(
            x.grad, x.shape, expected["input_grad_norms"][i], expected["input_grad_dots"][i], f"input {i} in {mode}"
        )
    for name, buffer in module.named_buffers():
        if published[name] in expected.get("buffers_after", {}):
            torch.testing.assert_close(
                buffer, expected["buffers_after"][published[name]].to(buffer), rtol=1e-4, atol=1e-5
            )


def _check_gradient(gradient: Tensor | None, shape: torch.Size, norm: float, dot: float, name: str) -> None:
    assert gradient is not None, name
    tolerance = 1e-3 * norm
    assert float(gradient.norm()) == pytest.approx(norm, abs=tolerance), name
    (direction,) = _random([shape], 2)
    # A dot product with noise has the spread of the norm.
    assert float((gradient.reshape(shape) * direction).sum()) == pytest.approx(dot, abs=tolerance), name


def _random(shapes: Sequence[Sequence[int]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in shapes]
