"""Published checkpoints: whose one is, which network it holds, and its tensors under our names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastfcn_pl.contracts import UserError
from fastfcn_pl.models.weights import mmseg, official
from fastfcn_pl.models.weights.names import rename


@dataclass(frozen=True)
class Published:
    """A published network, read."""

    source: str
    """Whose code wrote it."""
    architecture: dict[str, Any]
    """Options by group (`backbone`, `neck`, `head`, `aux_head`), `head_keys`, `align_corners`, `num_classes`."""
    state: dict[str, Tensor]
    """Under the names of our `Segmenter`."""
    dropped: list[str]
    """Their names of the tensors that our network has no use for."""

    @property
    def overrides(self) -> list[str]:
        """The command line that composes this network."""
        it = self.architecture
        options = [f"model/{group}={it[group]}" for group in ("backbone", "neck", "head", "aux_head")]
        keys = [f"model.head.{key}={value}" for key, value in it["head_keys"].items()]
        return [*options, *keys, f"model.align_corners={it['align_corners']}"]


def recognise(state: dict[str, Tensor]) -> Published:
    """Return the published network that `state` holds; raises UserError where it is none that we know."""
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}  # of DataParallel
    if official.is_official(state):
        source, reader = "FastFCN / PyTorch-Encoding", official
    elif mmseg.is_mmseg(state):
        source, reader, state = "mmsegmentation", mmseg, mmseg.reorder(state)  # type: ignore[assignment]
    else:
        names = ", ".join(list(state)[:3])
        raise UserError(
            f"its tensors ({names}, ...) are those of no network of FastFCN, PyTorch-Encoding or mmsegmentation"
        )
    found = reader.architecture(state)
    renamed, dropped = rename(state, reader.rules(found["head"]))
    return Published(source, found, renamed, dropped)
