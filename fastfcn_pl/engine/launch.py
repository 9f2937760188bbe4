"""Running a Hydra job so that a user's mistake ends in one line and exit code 1."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fastfcn_pl.config import schema
from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.workers import TERMINATION_SIGNALS, exit_with_parent
from fastfcn_pl.engine import (
    checkpoint_location,
    console,
    failure,
    help_page,
    home_folder,
    job_folder,
    match,
    startup_messages,
    sweep,
    usage,
)
from fastfcn_pl.engine.broken_pipe import outlive_readers
from fastfcn_pl.engine.command_line import asks_for_help, overrides_first
from fastfcn_pl.engine.error_messages import one_line
from fastfcn_pl.engine.folder_claim import Claim
from fastfcn_pl.engine.frozen_job import FLAG, FrozenJob, received, thaw
from fastfcn_pl.engine.hydra_job import overrides
from fastfcn_pl.engine.job_imports import imported
from fastfcn_pl.engine.job_state import check_start, has_work
from fastfcn_pl.engine.shutdown import orderly, stoppable
from fastfcn_pl.training.distributed import (
    Started,
    is_rank_0,
    rank_0_ends,
    without_srun,
)


@orderly()
def main(config_name: str, job: str) -> None:
    """Compose the config `config_name` with the command line and run `job`, such as `fastfcn_pl.tools.train:train`.

    The job is imported after its configuration is known to be good, since its libraries take seconds to load. Errors
    that users can fix are one line; `+debug=true` shows their tracebacks.
    """
    if (answer := usage.answer(sys.argv[1:])) is not None:
        print(answer)
        return
    outlive_readers()
    home_folder.provide()
    console.hide_secrets()
    schema.register(print_only=startup_messages.shows(sys.argv))
    module = f"fastfcn_pl.{config_name}"
    if sys.argv[1:2] == [FLAG]:
        _run_frozen(module, job, received())
        return
    started = Started.this()
    if started is not None and started.rank > 0:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # only rank 0 prints, also the log of torch's C++ code
        _run_frozen(module, job, started.receive())
        return
    sys.argv[1:] = overrides_first(sys.argv[1:])
    # Hydra then raises its errors instead of printing them in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    composing = hydra.main(version_base="1.3", config_path=str(schema.CONF_DIR), config_name=config_name)
    run = composing(_reporting(module, job))
    failed, exit_code = False, 1
    try:
        try:
            if asks_for_help(sys.argv):
                print(help_page.page(config_name, sys.argv[1:]))
            else:
                run()
            startup_messages.say_notes()  # about a configuration that was only printed
            exit_code = 0
        finally:
            failed = sweep.report()
    except Exception as error:
        if not failed:
            failure.end(error)
        failure.say(one_line(error) or str(error))  # such as Optuna's, if no trial succeeded
    finally:
        if started is not None:
            started.end(exit_code)
    if failed:
        sys.exit(1)


def _reporting(module: str, job: str) -> Callable[[DictConfig], Any]:
    """Return the function that Hydra calls for a job: it runs a single job here, and a sweep's job in a new process.

    A user's mistake in a single job ends the command here, before Hydra reports it.
    """

    def run(cfg: DictConfig) -> Any:
        console.hide_secrets()  # a launcher may have started this process
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            return _run_apart(module, cfg)
        try:
            with job_folder.claimed(cfg) as claims:
                return _run_alone(module, job, cfg, claims)
        except Exception as error:
            failure.end(error)

    run.__module__ = module  # which Hydra names the job after
    return run


def _run_alone(module: str, job: str, cfg: DictConfig, claims: list[Claim]) -> Any:
    """Run a single job, whose folders `claims` reserve for it. If it fails before it makes anything, remove them."""
    new = [claim for claim in claims if job_folder.is_new(claim.folder)]
    try:
        if "resume" in cfg:  # it trains
            check_start(cfg)
        checkpoint_location.resolve_checkpoint(cfg)
        if "resume" in cfg:
            if cfg.resume == "auto" and not has_work(cfg):
                return None
            if cfg.resume is None and claims:
                job_folder.write_config(cfg)
        startup_messages.before_imports(module, cfg)
        match.solve(cfg)
        FrozenJob.current = frozen = FrozenJob.of(module, cfg)
        if (started := Started.this()) is not None:
            if "trainer" not in cfg and started.size > 1:
                raise UserError(f"this command works in one process: leave out {started.by}")
            started.share(frozen.text)
        return _import_and_run(job, cfg)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) or one_line(error) is not None:
            job_folder.remove([claim.folder for claim in new if claim.is_only_one()])
        raise


def _run_apart(module: str, cfg: DictConfig) -> float | None:
    """Run a job of a sweep in a process of its own, write down how it ended, and return its mIoU.

    A failure is None, which no launcher and no sweeper takes for a reason to leave out other jobs. A job that is done
    from an earlier start of the sweep is not run again, one that was stopped resumes.
    """
    started = Started.this()
    if {"RANK", "LOCAL_RANK"} & os.environ.keys() or (started is not None and started.size > 1):
        raise UserError(
            "-m: each job of a sweep starts its own ranks: leave out torchrun, let SLURM start one task, and set "
            "trainer.devices"
        )
    startup_messages.say_notes()
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    try:
        if "resume" in cfg:  # it trains
            with job_folder.claimed(cfg):
                check_start(cfg)
                if not has_work(cfg):
                    return sweep.keep(folder, job.job.num, overrides())
                if cfg.resume is None:
                    job_folder.write_config(cfg)
        checkpoint_location.resolve_checkpoint(cfg)
    except UserError as error:
        failure.say(f"job {job.job.num} ({job.job.override_dirname}): {error}")
        sweep.refuse(folder, job.job.num, overrides(), str(error))
        return None
    sweep.print_heading(job.job.num, overrides())
    (folder / sweep.ERROR).unlink(missing_ok=True)
    started_at = time.monotonic()
    frozen = FrozenJob.of(module, cfg)
    process = start_job(frozen.command(), {**without_srun(os.environ), **frozen.environment})
    stopped = 0

    def stop(number: int, *_: Any) -> None:
        nonlocal stopped
        stopped = number
        process.send_signal(number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    handled = [
        number for number in TERMINATION_SIGNALS if in_main_thread and signal.getsignal(number) is not signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, stop) for number in handled}
    try:
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    score = sweep.record(folder, job.job.num, overrides(), code, time.monotonic() - started_at)
    if stopped:
        sys.exit(128 + stopped)
    return score


def start_job(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process of a sweep's job."""
    return subprocess.Popen(command, env=environment)


def _run_frozen(module: str, job: str, text: str) -> None:
    """Run a job that another process has frozen, as a job of a sweep or as a rank."""
    cfg = thaw(text)
    sys.argv[1:] = overrides()
    if not is_rank_0():
        exit_with_parent()
    try:
        startup_messages.before_imports(module, cfg)
        if is_rank_0():
            match.solve(cfg)
        FrozenJob.current = FrozenJob.of(module, cfg)
        with job_folder.claimed(cfg) if "resume" in cfg else nullcontext():
            _import_and_run(job, cfg)
    except Exception as error:
        failure.end(error)
    except SystemExit:
        if not is_rank_0():
            rank_0_ends()  # else the launcher would kill rank 0, too, while it closes its loggers
        raise


def _import_and_run(job: str, cfg: DictConfig) -> Any:
    def run(cfg: DictConfig) -> Any:
        function = imported(job)
        checkpoint_location.say_choice(cfg)
        return function(cfg)

    return stoppable(run, cfg)
