"""Proof of where the output of a module goes, which has to hold before two modules are computed as one.

It has two halves. A symbolic trace sees every path through a forward that does not depend on values or sizes, and has
no result for one that does. A run sees what really happens at the level of torch's operations, so also what a forward
does with a tensor outside of modules.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastfcn_pl.models.exact import is_untouched
from fastfcn_pl.resize import resize

_UNCHANGING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Modules that return their input itself in eval mode."""
_NORM_ACT, _SAME = "timm.layers.norm_act.BatchNormAct2d", "timm.layers.conv2d_same.Conv2dSame"
"""timm's batch norm with an activation inside, and its convolution whose padding follows the size: by name, since only
backbones import timm."""
Names = dict[nn.Module, set[nn.Module | None]]


class Uses:
    """Which modules take the output of which others in `network`, which is in eval mode, once it ran in `watched`."""

    def __init__(self, network: nn.Module) -> None:
        self._network, self._shared = network, _shared(network)
        self._halves = self._symbolic, self._run = _Symbolic(network), _Run(network)

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
        """Return the modules whose outputs go to `module` and nowhere else, if it takes nothing else; else none."""
        found = [half.sources.get(module, {None}) for half in self._halves]
        if found[0] != found[1] or not self._is_sure(module):
            return set()
        makers = {maker for maker in found[0] if maker is not None and self._is_sure(maker)}
        only = all(half.users.get(maker) == {module} for half in self._halves for maker in makers)
        return makers if only and len(makers) == len(found[0]) else set()

    def is_called_by_parent(self, module: nn.Module) -> bool:
        """Tell whether nothing but the module that holds `module`, which was not looked into, is known to call it."""
        return self._is_sure(module) and module not in self._symbolic.sources

    def _is_sure(self, module: nn.Module) -> bool:
        unsure = any(module in modules for modules in (self._shared, self._symbolic.read, self._run.read))
        return not unsure and is_untouched(module)


def is_norm_act(module: nn.Module) -> bool:
    """Tell whether `module` is exactly timm's batch norm with an activation inside."""
    return _name(module) == _NORM_ACT


def is_convolution(module: nn.Module) -> bool:
    """Tell whether `module` is a convolution by its own weight, of torch's, timm's or ours, whatever its padding."""
    ours = isinstance(module, nn.Conv2d) and "stands_for" in vars(type(module))
    return type(module) is nn.Conv2d or ours or _name(module) == _SAME


def _name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _shared(network: nn.Module) -> set[nn.Module]:
    """Return the modules that have several names, or parameters that another module has, too."""
    modules = Counter(module for _, module in network.named_modules(remove_duplicate=False))
    owners: defaultdict[int, set[nn.Module]] = defaultdict(set)
    for module in modules:
        for tensor in chain(module._parameters.values(), module._buffers.values()):
            if tensor is not None:
                owners[tensor.untyped_storage()._cdata].add(module)
    several = (found for found in owners.values() if len(found) > 1)
    return {module for module, count in modules.items() if count > 1}.union(*several)


class _Symbolic:
    """What symbolic traces of `network`, or of those parts of it that can be traced, show."""

    def __init__(self, network: nn.Module) -> None:
        self.users: Names = defaultdict(set)
        self.sources: Names = defaultdict(set)
        self.read: set[nn.Module] = set()
        # Traced forwards may leave something in their modules: they are those of a copy, with the same tensors.
        tensors = (
            value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)
        )
        shared = chain(network.parameters(), network.buffers(), tensors)
        copied = copy.deepcopy(network, {id(tensor): tensor for tensor in shared})
        self._originals = dict(zip(copied.modules(), network.modules(), strict=True))
        self._seen: set[nn.Module] = set()
        self._explore(copied)

    def _explore(self, module: nn.Module) -> None:
        """Trace `module`, or, if that is impossible, its children."""
        if module in self._seen or _is_leaf(module):
            return
        self._seen.add(module)
        tracer = _Tracer()
        known = type(module).__call__ is nn.Module.__call__ and "forward" not in vars(module)
        try:
            graph = tracer.trace(module) if known else None
        except Exception:  # a forward that decides by values fails in any way
            graph = None
        if graph is None:
            untraced = [module]
        else:
            self._read(graph, module, tracer.kept())
            untraced = tracer.untraced
        for parent in untraced:
            for child in parent.children():
                self._explore(child)

    def _read(self, graph: fx.Graph, root: nn.Module, kept: set[fx.Node]) -> None:
        def called(node: fx.Node) -> nn.Module:
            return self._originals[root.get_submodule(str(node.target))]

        def unchanged(node: Any) -> bool:
            if not _calls_with_one(node):
                return False
            module = called(node)
            return type(module) in _UNCHANGING and not module.training and is_untouched(module)

        def takers(node: fx.Node) -> Iterator[nn.Module | None]:
            if node in kept:
                yield None
            for user in node.users:
                if unchanged(user):
                    yield from takers(user)
                else:
                    yield called(user) if _calls_with_one(user) else None

        for node in graph.nodes:
            if node.op == "get_attr":  # a weight that a forward itself computes with
                self.read.add(self._originals[root.get_submodule(str(node.target).rpartition(".")[0])])
            elif node.op == "call_module":
                module = called(node)
                self.users[module].update(takers(node))
                source: Any = node.args[0] if _calls_with_one(node) else None
                while unchanged(source):
                    source = source.args[0]
                maker = called(source) if isinstance(source, fx.Node) and source.op == "call_module" else None
                self.sources[module].add(maker)


def _calls_with_one(node: Any) -> bool:
    """Tell whether `node` is a module's call with one tensor."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return False
    return len(node.args) == 1 and isinstance(node.args[0], fx.Node) and not node.kwargs


def _is_leaf(module: nn.Module) -> bool:
    """Tell whether a trace does not look into `module`: it is one of torch's, or of ours that stands for one."""
    containers = nn.Sequential, nn.ModuleList, nn.ModuleDict
    known = type(module).__module__.startswith("torch.nn.") and type(module) not in containers
    return known or is_norm_act(module) or is_convolution(module)


class _Tracer(fx.Tracer):
    """A tracer that goes on after a module that it cannot trace, which it calls as a whole."""

    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(resize,))  # which decides by sizes
        self.untraced: list[nn.Module] = []
        self._proxies: list[tuple[fx.Node, weakref.ref[fx.Proxy]]] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_leaf(m) or m in self.untraced

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before, stack = set(self.graph.nodes), self.module_stack.copy()
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # a forward that decides by values fails in any way
            for node in list(reversed(self.graph.nodes)):
                if node not in before and node.op != "get_attr":  # the tracer keeps these to use them again
                    self.graph.erase_node(node)
            self.module_stack = stack
            self.untraced.append(m)
        return super().call_module(m, forward, args, kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        proxy = super().proxy(node)
        self._proxies.append((node, weakref.ref(proxy)))
        return proxy

    def kept(self) -> set[fx.Node]:
        """Return the nodes of values that some module has kept: who uses these is not known."""
        if any(proxy() is not None for _, proxy in self._proxies):
            gc.collect()
        return {node for node, proxy in self._proxies if proxy() is not None}


class _Run(TorchDispatchMode):
    """What operations did with the outputs of modules of `network` while it ran."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.users: Names = defaultdict(set)
        self.sources: Names = defaultdict(set)
        self.read: set[nn.Module] = set()
        self._running: list[nn.Module] = []
        # By a tensor's id, which stays its own as long as it is kept, and its version, which in-place changes raise.
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
        """Let go of the tensors of a run, which may have failed."""
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
