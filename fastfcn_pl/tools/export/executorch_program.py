"""ExecuTorch's programs: a network for phones, lowered to XNNPACK and ExecuTorch's own operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fastfcn_pl.tools.libraries import import_library

_FORWARD, _METADATA = "forward", "fastfcn_pl"
"""Methods of a program: the network, and our metadata."""
_DELEGATED = (
    *("Addmm", "Add", "AvgPooling", "Convolution", "Gelu", "Hardswish"),
    *("Hardtanh", "Linear", "MaxPool2d", "Mul", "ReLU", "Sigmoid"),
)
"""Operations for XNNPACK. It would take others, and fail at two dynamic sides or at tensors of more than six axes."""


def write(network: nn.Module, path: Path, images: Tensor, max_size: int, text: str | None = None) -> None:
    """Write `network`, which takes one of such `images` `(B, C, H, W)` of up to `max_size` pixels a side, and metadata.

    A program plans its memory for the largest image.
    """
    exir = import_library("executorch.exir", "executorch")
    xnnpack = import_library("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
    configs = [
        config for config in xnnpack.ALL_PARTITIONER_CONFIGS if config.__name__.removesuffix("Config") in _DELEGATED
    ]
    side = torch.export.Dim.DYNAMIC(max=max_size)
    with torch.no_grad():
        program = torch.export.export(network, (images[:1],), dynamic_shapes=({2: side, 3: side},))
        lowered = exir.to_edge_transform_and_lower(
            program,
            partitioner=[xnnpack.XnnpackPartitioner(configs)],
            constant_methods=None if text is None else {_METADATA: text},
        )
        path.write_bytes(lowered.to_executorch().buffer)


def read(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Return the metadata of a program, empty without any, and a function that runs it on CPUs, image by image."""
    runtime = import_library("executorch.runtime", "executorch").Runtime.get()
    program = runtime.load_program(path.read_bytes())
    text = program.load_method(_METADATA).execute([])[0] if _METADATA in program.method_names else ""

    def run(images: Tensor) -> Tensor:
        forward = program.load_method(_FORWARD)  # the program, which keeps it, has to outlive it
        return torch.cat([forward.execute([image[None].contiguous()])[0] for image in images.cpu()])

    return text, run
