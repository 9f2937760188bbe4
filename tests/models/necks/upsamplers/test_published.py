"""Upsamplers against the published modules: outputs, loss and gradients of each case in `parity/necks`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastfcn_pl.models.necks.upsamplers.carafe import CARAFE
from fastfcn_pl.models.necks.upsamplers.dysample import DySample
from fastfcn_pl.models.necks.upsamplers.fade import FADE
from fastfcn_pl.models.necks.upsamplers.sapa import SAPA
from tests.support import neck_parity


def carafe(hyper: dict[str, Any]) -> nn.Module:
    return CARAFE(
        hyper["channels"],
        False,
        hyper["scale_factor"],
        kernel_size=hyper["up_kernel"],
        groups=hyper["up_group"],
        compressed_channels=hyper["compressed_channels"],
        encoder_kernel_size=hyper["encoder_kernel"],
        encoder_dilation=hyper["encoder_dilation"],
    )


def dysample(hyper: dict[str, Any]) -> nn.Module:
    return DySample(
        hyper["in_channels"],
        False,
        hyper["scale"],
        style=hyper["style"],
        groups=hyper["groups"],
        dynamic_scope=hyper["dyscope"],
    )


def sapa(hyper: dict[str, Any]) -> nn.Module:
    module = SAPA(
        hyper["dim_x"],
        False,
        hyper["up_factor"],
        kernel_size=hyper["up_kernel_size"],
        embedding_channels=hyper["embedding_dim"],
        norm={None: "none", "GroupNorm(32)": "group", "LayerNorm over channels": "layer"}[hyper["norm"]],
        norm_groups=32,
    )
    module.query = nn.Conv2d(hyper["dim_y"], hyper["embedding_dim"], 1)  # one case has a fine map of other channels
    return module


def fade(hyper: dict[str, Any], gated: bool = True, lite: bool = False) -> nn.Module:
    return FADE(
        hyper["in_channels_en"],
        False,
        hyper["scale"],
        kernel_size=hyper["up_kernel_size"],
        compressed_channels=hyper["embedding_dim"],
        encoder_kernel_size=hyper["kernel_size"],
        gated=gated,
        lite=lite,
    )


NAMES = {
    "carafe": {"compress": "channel_compressor", "encode": "content_encoder"},
    "dysample": {},
    "sapa": {"query": "q", "key": "k", "norm_fine": "norm_y", "norm_coarse": "norm_x"},
    "fade": {
        "compress_fine": "ker_generator.compressor_en",
        "compress_coarse": "ker_generator.compressor_de",
        "encode": "ker_generator.content_encoder",
        "gate": "gate_generator.conv",
    },
}
"""Published names of our submodules."""
BUILDERS: dict[str, dict[str, Callable[[dict[str, Any]], nn.Module]]] = {
    "carafe": dict.fromkeys(["s2_k5_g1", "s2_k5_g4", "s4_k3_enc1", "s2_dilated_encoder"], carafe),
    "dysample": dict.fromkeys(["lp", "lp_dyscope", "pl", "pl_dyscope", "lp_scale4", "pl_dyscope_scale4"], dysample),
    "sapa": dict.fromkeys(["B_groupnorm", "B_no_norm_dims_differ", "neurips_layernorm"], sapa),
    "fade": {"l2h": fade, "l2h_lite": partial(fade, lite=True), "l2h_ungated": partial(fade, gated=False)},
}
LEFT_OUT = {"fade": {"h2l"}}
"""The published file mixes up channels when it splits its padded copies; `l2h` is the same formula."""


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, builders in BUILDERS.items() for name in builders])
def test_outputs_loss_and_gradients_are_the_published_ones(file: str, name: str, shared: Path) -> None:
    case = neck_parity.cases(shared / "parity" / "necks" / f"{file}.pt")[name]
    module = BUILDERS[file][name](case["hyper"])
    assert sum(parameter.numel() for parameter in module.parameters()) == case["parameter_count"]

    def arguments(*given: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coarse and the fine map; the published CARAFE and DySample take the coarse one only."""
        if len(given) == 1:
            return given[0], torch.empty(case["output_shapes"][0])
        return given[1], given[0]

    neck_parity.check(module, case, NAMES[file], arguments)


@pytest.mark.parametrize("file", BUILDERS)
def test_every_published_case_is_compared(file: str, shared: Path) -> None:
    names = neck_parity.cases(shared / "parity" / "necks" / f"{file}.pt").keys()
    assert BUILDERS[file].keys() | LEFT_OUT.get(file, set()) == names
