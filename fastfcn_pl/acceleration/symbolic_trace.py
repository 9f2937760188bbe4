"""Uses of modules' outputs in symbolic traces of their forwards."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any

from torch import Tensor, fx, nn

from fastfcn_pl.acceleration.known_modules import is_convolution, is_norm_act, is_untouched
from fastfcn_pl.ops.interpolate import resize

_UNCHANGING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Modules that return their input itself in eval mode."""
Names = dict[nn.Module, set[nn.Module | None]]


class SymbolicUses:
    """Uses in symbolic traces of `network`, or of those of its parts that can be traced."""

    def __init__(self, network: nn.Module) -> None:
        self.users: Names = defaultdict(set)
        self.sources: Names = defaultdict(set)
        self.read: set[nn.Module] = set()
        # Traced forwards may leave something in their modules, so that a copy with the same tensors is traced.
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
    """Tell whether a trace does not look into `module`, because torch or timm defines what it computes."""
    containers = nn.Sequential, nn.ModuleList, nn.ModuleDict
    known = type(module).__module__.startswith("torch.nn.") and type(module) not in containers
    return known or is_norm_act(module) or is_convolution(module)


class _Tracer(fx.Tracer):
    """A tracer that treats a module that it cannot trace as a leaf, and continues."""

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
                if node not in before and node.op != "get_attr":  # the tracer keeps these and reuses them
                    self.graph.erase_node(node)
            self.module_stack = stack
            self.untraced.append(m)
        return super().call_module(m, forward, args, kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        proxy = super().proxy(node)
        self._proxies.append((node, weakref.ref(proxy)))
        return proxy

    def kept(self) -> set[fx.Node]:
        """Return the nodes of values that some module has kept, whose users are unknown."""
        if any(proxy() is not None for _, proxy in self._proxies):
            gc.collect()
        return {node for node, proxy in self._proxies if proxy() is not None}
