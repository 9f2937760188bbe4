"""Published checkpoints: their source, their network, and their tensors under our names."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from torch import Tensor

from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.weights import mmseg, official
from fastfcn_pl.models.weights.rename import Architecture, count_batches, rename


@dataclass(frozen=True)
class Published:
    """A published network as it was read."""

    source: str
    """The code that wrote it."""
    architecture: Architecture
    state: dict[str, Tensor]
    """Tensors under the names of our `Segmenter`."""
    dropped: list[str]
    """Published names of tensors that our network does not use."""


def recognise(state: dict[str, Tensor]) -> Published:
    """Return the published network in `state`; raises UserError if it is unknown."""
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}  # of DataParallel
    reader: ModuleType
    if official.is_official(state):
        source, reader = "FastFCN / PyTorch-Encoding", official
    elif mmseg.is_mmseg(state):
        source, reader, state = "mmsegmentation", mmseg, mmseg.reorder(state)
    else:
        names = ", ".join(list(state)[:3])
        raise UserError(
            f"its tensors ({names}, ...) are those of no network of FastFCN, PyTorch-Encoding or mmsegmentation"
        )
    try:
        network = reader.architecture(state)
    except KeyError as name:
        raise UserError(f"the tensor {name} is missing") from name
    renamed, dropped = rename(state, reader.rules(network.options["head"]))
    return Published(source, network, count_batches(renamed), dropped)
