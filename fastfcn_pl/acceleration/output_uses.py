"""Proof of the uses of a module's output, which is needed before two modules are computed as one.

It has two halves. A symbolic trace sees every path through a forward that does not depend on values or sizes, and has
no result for others. A run sees every operation of torch, also those of a forward outside of its modules.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastfcn_pl.acceleration.known_modules import is_untouched
from fastfcn_pl.acceleration.symbolic_trace import Names, SymbolicUses


class Uses:
    """The modules that take the output of others in `network`, which is in eval mode, once it ran in `watched`."""

    def __init__(self, network: nn.Module) -> None:
        self._network, self._shared = network, _shared(network)
        self._halves = self._symbolic, self._run = SymbolicUses(network), _Run(network)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch a run of the network."""
        hooks = []
        for module in self._network.modules():
            hooks += [module.register_forward_pre_hook(self._run.begin), module.register_forward_hook(self._run.end)]
        try:
            with self._run:
                yield
        finally:
            self._run.forget()
            for hook in hooks:
                hook.remove()

    def makers(self, module: nn.Module) -> set[nn.Module]:
        """Return the modules whose outputs go only to `module`, if it takes nothing else; else none."""
        traced, run = (half.sources.get(module, {None}) for half in self._halves)
        if traced != run or not self._is_sure(module):
            return set()
        makers = {maker for maker in traced if maker is not None and self._is_sure(maker)}
        only = all(half.users.get(maker) == {module} for half in self._halves for maker in makers)
        return makers if only and len(makers) == len(traced) else set()

    def is_called_by_parent(self, module: nn.Module) -> bool:
        """Tell whether only the module that holds `module`, into which no trace looked, is known to call it."""
        return self._is_sure(module) and module not in self._symbolic.sources

    def _is_sure(self, module: nn.Module) -> bool:
        unsure = any(module in modules for modules in (self._shared, self._symbolic.read, self._run.read))
        return not unsure and is_untouched(module)


def _shared(network: nn.Module) -> set[nn.Module]:
    """Return the modules that have several names, or that share tensors with another module."""
    modules = Counter(module for _, module in network.named_modules(remove_duplicate=False))
    owners: defaultdict[int, set[nn.Module]] = defaultdict(set)
    for module in modules:
        for tensor in chain(module._parameters.values(), module._buffers.values()):
            if tensor is not None:
                owners[tensor.untyped_storage()._cdata].add(module)
    several = (modules for modules in owners.values() if len(modules) > 1)
    return {module for module, count in modules.items() if count > 1}.union(*several)


class _Run(TorchDispatchMode):
    """Uses of the outputs of modules of `network` by operations during runs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.users: Names = defaultdict(set)
        self.sources: Names = defaultdict(set)
        self.read: set[nn.Module] = set()
        self._running: list[nn.Module] = []
        # By a tensor's id, which is unique while it is kept, and its version, which in-place changes raise.
        self._made: dict[tuple[int, int], tuple[nn.Module, Tensor]] = {}
        self._owners = {
            id(tensor): module
            for module in network.modules()
            for tensor in chain(module._parameters.values(), module._buffers.values())
            if tensor is not None
        }

    def begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._running.append(module)
        maker, _ = self._made.get(_key(inputs[0]), (None, None)) if len(inputs) == 1 else (None, None)
        self.sources[module].add(maker)

    def end(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._running.pop()
        if isinstance(output, Tensor):
            self._made.setdefault(_key(output), (module, output))

    def forget(self) -> None:
        """Release the tensors of a run, which may have failed."""
        self._made.clear()
        self._running.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = torch.utils._pytree.tree_leaves((args, kwargs)) if self._running else ()
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            running = self._running[-1]
            maker, _ = self._made.get(_key(tensor), (None, None))
            if maker is not None:
                self.users[maker].add(running)
            owner = self._owners.get(id(tensor))
            if owner is not None and owner is not running:
                self.read.add(owner)
        return func(*args, **(kwargs or {}))


def _key(tensor: Any) -> tuple[int, int]:
    return id(tensor), tensor._version if isinstance(tensor, Tensor) else 0
