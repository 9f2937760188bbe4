"""Commands in the test's own process, which is afterwards as it was before.

A process of its own takes 6 to 10 seconds to import torch and Lightning. What only a process has (signals that end it,
ranks, the exit of an interpreter) is tested with `tests.support.processes`.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import random
import runpy
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest import mock

import numpy as np
import torch
import wandb
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.style import Style

from fastfcn_pl.config import lightning_messages
from fastfcn_pl.config.composition import ConfigLoader
from fastfcn_pl.core import reachability, redaction
from fastfcn_pl.data.workers import TERMINATION_SIGNALS
from fastfcn_pl.engine import launch, shutdown, sweep
from fastfcn_pl.engine.frozen_job import FrozenJob
from fastfcn_pl.training.distributed import Started

_FILTERS = [
    f
    for f in warnings.filters
    if f[0] != "always" or not issubclass(f[2], (DeprecationWarning, PendingDeprecationWarning))
]
"""Filters that libraries set when they are imported, without those that pytest adds."""


def run(command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """Run `python -m <command>` in `folder` and return what it said, as `subprocess.run` does."""
    env = dict(os.environ) if env is None else env
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _standard_streams(out.fileno(), err.fileno()):
            code = _run(command, folder, env)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return CompletedProcess(list(command), code, *texts)


def _run(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> int:
    """Run a command, which may be a job that another one started; return its exit code."""
    with ExitStack() as stack:
        for restoring in (_environment(folder, env), _libraries(), _hydra(), _package(), _logging(), _signals()):
            stack.enter_context(restoring)
        try:
            with mock.patch.object(sys, "argv", list(command)):
                runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        except SystemExit as error:
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
            return 1
        return 0


class _Job:
    """A job of a sweep as its process, which has ended when it is there."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        assert list(command[:2]) == [sys.executable, "-m"]
        self._code = _run(command[2:], Path.cwd(), env)

    def wait(self) -> int:
        return self._code


@contextmanager
def _standard_streams(*files: int) -> Iterator[None]:
    """Send what is written to standard output and error to `files`, also what is not Python's."""
    streams, kept = (sys.stdout, sys.stderr), [os.dup(1), os.dup(2)]
    for stream in streams:
        stream.flush()
    for standard, file in zip((1, 2), files, strict=True):
        os.dup2(file, standard)
    own = [open(standard, "w", encoding="utf-8", closefd=False) for standard in (1, 2)]  # noqa: SIM115
    own[1].reconfigure(line_buffering=True)
    try:
        sys.stdout, sys.stderr = own
        yield
    finally:
        for stream in own:
            stream.flush()
        sys.stdout, sys.stderr = streams
        for standard, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, standard)
            os.close(copy)


@contextmanager
def _environment(folder: Path, env: Mapping[str, str]) -> Iterator[None]:
    """Enter the folder and the environment; forget what is imported from there."""
    cwd, path, modules = Path.cwd(), list(sys.path), set(sys.modules)
    places = [str(folder), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    importlib.invalidate_caches()
    with mock.patch.dict(os.environ, env, clear=True):
        os.chdir(folder)
        sys.path[:0] = places
        try:
            yield
        finally:
            os.chdir(cwd)
            sys.path[:] = path
            for name in sys.modules.keys() - modules:
                file = str(getattr(sys.modules[name], "__file__", None))
                if any(file.startswith(f"{place}{os.sep}") for place in places):
                    del sys.modules[name]


@contextmanager
def _libraries() -> Iterator[None]:
    """Put back what commands set in libraries: generators, flags of torch, hooks of W&B, warnings."""
    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    deterministic, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    flags = torch.get_default_dtype(), torch.get_num_threads(), torch.backends.cudnn.benchmark
    matmul, rank, threads = torch.get_float32_matmul_precision(), rank_zero_only.rank, set(threading.enumerate())
    hooks = [(sys, "exit", sys.exit), (sys, "excepthook", sys.excepthook)]
    rank_zero_only.rank = 0
    _forget_styles()
    try:
        # A command keeps what it has imported; here it would keep what tests left.
        with warnings.catch_warnings(), mock.patch.object(gc, "freeze"):
            warnings.filters[:] = _FILTERS  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]
            lightning_messages.hide()  # `build` did it when it was imported, and pytest may have undone it
            warnings.showwarning = _show_warning
            yield
    finally:
        if wandb.sdk.wandb_setup._singleton is not None:
            wandb.teardown()
        for owner, name, value in hooks:
            setattr(owner, name, value)
        random.setstate(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002
        torch.set_rng_state(generators[2])
        torch.use_deterministic_algorithms(deterministic, warn_only=warn)
        torch.set_default_dtype(flags[0])
        torch.set_num_threads(flags[1])
        torch.backends.cudnn.benchmark = flags[2]
        torch.set_float32_matmul_precision(matmul)
        rank_zero_only.rank = rank
        _forget_styles()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for thread in set(threading.enumerate()) - threads:
            if not thread.daemon:
                thread.join(30)


def _forget_styles() -> None:
    """Have rich render styles anew: each keeps the codes of the first terminal that it was shown on."""
    for method in vars(Style).values():
        if (forget := getattr(getattr(method, "__func__", method), "cache_clear", None)) is not None:
            forget()


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


@contextmanager
def _hydra() -> Iterator[None]:
    instances = Singleton._instances
    Singleton._instances = {k: v for k, v in instances.items() if k not in (HydraConfig, GlobalHydra)}
    try:
        yield
    finally:
        Singleton._instances = instances


@contextmanager
def _package() -> Iterator[None]:
    """Put back what the package knows of its process, and start jobs of sweeps in this one."""
    known, redaction._replacements, redaction._pattern = redaction._replacements, {}, None
    values = [(FrozenJob, "current", None), (sweep, "_current", None), (ConfigLoader, "notes", ())]
    values += [
        (ConfigLoader, "print_only", False),
        (shutdown, "_exit_after", lambda *_: None),
        (launch, "start_job", _Job),
    ]
    with ExitStack() as stack:
        for owner, name, value in values:
            stack.enter_context(mock.patch.object(owner, name, value))
        try:
            for cached in (Started.this, reachability.check_server):
                cached.cache_clear()
            yield
        finally:
            for cached in (Started.this, reachability.check_server):
                cached.cache_clear()
            redaction._replacements, redaction._pattern = known, None


@contextmanager
def _logging() -> Iterator[None]:
    """Put loggers back; meanwhile those that write to standard streams write to the command's."""
    factory = logging.getLogRecordFactory()
    loggers = [logging.root, *(x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger))]
    kept = [(x, list(x.handlers), x.level, x.propagate, x.disabled) for x in loggers]
    streams = {
        handler: handler.stream
        for logger in loggers
        for handler in logger.handlers
        if type(handler) is logging.StreamHandler and not hasattr(handler.stream, "getvalue")
    }
    for handler in streams:
        handler.stream = sys.stderr
    logging.root.handlers, pytests = [], logging.root.handlers
    logging.root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)
        for handler in logging.root.handlers:
            handler.close()
        logging.root.handlers = pytests
        for logger, handlers, level, propagate, disabled in kept:
            logger.handlers, logger.propagate, logger.disabled = handlers, propagate, disabled
            logger.setLevel(level)
        for handler, stream in streams.items():
            handler.stream = stream


@contextmanager
def _signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (*TERMINATION_SIGNALS, signal.SIGALRM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
