"""Running a Hydra job so that a user's mistake ends in one line and exit code 1."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fastfcn_pl import config, sweep
from fastfcn_pl.contracts import UserError, suggest
from fastfcn_pl.frozen import FLAG, FrozenJob, thaw
from fastfcn_pl.staging import OF_THE_DISK

Job = Callable[[DictConfig], Any]
_KEPT = ("checkpoints/*.ckpt", "metrics/metrics.csv", "not_finite", "results.json", "doctor.json")
"""What is of use after a mistake ended the run that made it."""
GRACE = 30.0
"""Seconds that a child of DDP, which has met an error, gives to rank 0 to meet it too."""
_PARENT = os.getppid()
_NOISE = re.compile(r"full_key|object_type|reference_type|Config search path|provider=")


def main(config_name: str, job: Job) -> None:
    """Compose the config `config_name` with the command line and run `job`; errors that users can mend are one line.

    `+debug=true` shows their tracebacks.
    """
    config.register()
    module = f"fastfcn_pl.{config_name}"
    if sys.argv[1:2] == [FLAG]:
        _run_frozen(module, job, sys.argv[2])
        return
    # Hydra then raises what went wrong while composing, instead of printing it in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    run = hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name=config_name)(
        _reporting(module, job)
    )
    failed = False
    try:
        try:
            run()
        finally:
            failed = sweep.report()
    except Exception as error:
        if not failed:
            _end(error)
        _say(one_line(error) or str(error))  # such as Optuna's, which has no trial to call the best
    if failed:
        sys.exit(1)


def _reporting(module: str, job: Job) -> Job:
    """End a single job's mistakes here, before Hydra reports them; run a sweep's jobs in processes of their own.

    A single job that a mistake ended before it made anything leaves no folder.
    """

    @functools.wraps(job)
    def run(cfg: DictConfig) -> Any:
        FrozenJob.current = frozen = FrozenJob.of(module, cfg)
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            return _run_apart(frozen)
        folders = _new_folders(cfg)
        try:
            return job(cfg)
        except KeyboardInterrupt:
            _remove(folders)
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            if one_line(error) is not None:
                _remove(folders)
            _end(error)

    return run


def _run_apart(frozen: FrozenJob) -> float | None:
    """Run a job of a sweep in a process of its own, write down how it ended, and return its mIoU.

    A failure is None, which no launcher and no sweeper takes for a reason to leave out other jobs.
    """
    if {"RANK", "LOCAL_RANK"} & os.environ.keys():
        raise UserError("-m: each job of a sweep starts its own ranks: leave out torchrun, and set trainer.devices")
    (frozen.folder / sweep.ERROR).unlink(missing_ok=True)
    begun = time.monotonic()
    process = subprocess.Popen(frozen.command())
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True
        process.terminate()

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # the terminal has interrupted it, too
        raise
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
    score = sweep.record(frozen.folder, HydraConfig.get().job.num, overrides(), code, time.monotonic() - begun)
    if stopped:
        sys.exit(128 + signal.SIGTERM)
    return score


def _run_frozen(module: str, job: Job, path: str) -> None:
    """Run a job that another process has frozen: as a job of a sweep, or as a rank."""
    cfg = thaw(path)
    FrozenJob.current = FrozenJob.of(module, cfg)
    sys.argv[1:] = overrides()
    try:
        job(cfg)
    except Exception as error:
        _end(error)


def _new_folders(cfg: DictConfig) -> list[Path]:
    """Return those of the job's folders that hold nothing but what Hydra has just written there."""
    job = HydraConfig.get()
    folder, run_dir = Path(job.runtime.output_dir), Path(cfg.get("run_dir") or job.runtime.output_dir)
    found = {path.name for path in folder.iterdir()}
    new = [folder] if ".hydra" in found and found <= {".hydra", f"{job.job.name}.log"} else []
    return [*new, run_dir] if not run_dir.exists() else new


def _remove(folders: list[Path]) -> None:
    """Remove the folders of a run that trained nothing, and the folders around them that this leaves empty."""
    for folder in folders:
        if os.environ.get("LOCAL_RANK", "0") != "0" or any(next(folder.glob(kept), None) for kept in _KEPT):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        for parent in folder.resolve().parents:
            if parent == Path.cwd() or any(parent.iterdir()):
                break
            parent.rmdir()


def _end(error: Exception) -> NoReturn:
    """Print the error in one line and exit, or raise it again where it is not one that the user can mend."""
    if not _is_rank_0() and _rank_0_ends():
        sys.exit(1)
    line = one_line(error)
    job = _job_of_sweep()
    if job is not None:
        cause = line or f"{type(error).__name__}: {' '.join(str(error).split())}"
        Path(str(job.runtime.output_dir), sweep.ERROR).write_text(f"{cause}\n")
    if line is None or any(re.fullmatch(r"\+*debug=(true|1)", argument.lower()) for argument in sys.argv[1:]):
        raise error
    _say(line if job is None else f"job {job.job.num} ({job.job.override_dirname}): {line}")
    sys.exit(1)


def _job_of_sweep() -> HydraConf | None:
    job = HydraConfig.get() if HydraConfig.initialized() else None
    return job if job is not None and job.mode is RunMode.MULTIRUN else None


def _say(line: str) -> None:
    print(f"error: {line}", file=sys.stderr)


def _is_rank_0() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _rank_0_ends() -> bool:
    """Wait for the parent, and tell whether it ended: it has then said what was wrong.

    Lightning kills rank 0 where a child ends before it, even while it closes its loggers.
    """
    end = time.monotonic() + GRACE
    while os.getppid() == _PARENT and time.monotonic() < end:
        time.sleep(0.1)
    return os.getppid() != _PARENT


def overrides() -> list[str]:
    """Return what the command line of this job sets, Hydra's own settings left out; empty outside of a job."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def choices(folder: str | None = None) -> dict[str, str]:
    """Return the option chosen in each config group, such as `model/neck: jpu`, of this job; empty outside of one.

    With `folder`, of the job that began the run in that folder.
    """
    if folder is None:
        return config.choices()
    path = Path(folder, ".hydra", "hydra.yaml")
    chosen = OmegaConf.load(path).hydra.runtime.choices if path.is_file() else {}
    return {k: v for k, v in chosen.items() if v is not None and not k.startswith("hydra/")}


def one_line(error: BaseException) -> str | None:
    """Return the message for an error that the user can mend, or None where it is not one."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    for link in chain:
        if isinstance(link, UserError):
            # A worker process hands its error over as text, with a traceback before the message.
            return " ".join(str(link).rsplit("UserError: ", 1)[-1].splitlines()).strip()
    for link in chain:
        if isinstance(link, OSError) and link.errno in OF_THE_DISK:
            return (
                f"{link.filename or 'a file'} cannot be written ({link.strerror}): make room there, or write elsewhere"
            )
    if type(error).__name__ == "MisconfigurationException":  # Lightning's word for a user's mistake
        return " ".join(str(error).split())
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        cause = f"{type(chain[-1]).__name__}: {' '.join(str(chain[-1]).split())}"
        return f"{key[1] if key else 'the config'} cannot be built: {cause} (+debug=true shows where)"
    if match := re.search(r"Key '(\w+)' not in '(\w+Config)'", str(error)):  # at the root of a study
        return f"{match[1]}: no such key; {suggest(match[1], getattr(config, match[2]).__dataclass_fields__)}"
    if isinstance(error, MissingConfigException) and str(error).startswith("Cannot find primary config"):
        known = suggest(str(error.missing_cfg_file), [path.stem for path in config.STUDIES_DIR.glob("*.yaml")])
        return f"-cn {error.missing_cfg_file}: no such study (-cd <folder> adds your own); {known}"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        unknown = next((link for link in chain if isinstance(link, (ConfigKeyError, ConfigAttributeError))), None)
        return _unknown_key(unknown) if unknown else _joined(chain)
    return None


def _unknown_key(error: OmegaConfBaseException) -> str:
    known = error.parent_node if isinstance(error.parent_node, DictConfig) else []
    return f"{error.full_key or error.key}: no such key; {suggest(str(error.key), known)}"


def _joined(chain: list[BaseException]) -> str:
    """Join what Hydra says over several lines and causes, once each."""
    lines = [line.strip().rstrip(".") for link in chain for line in str(link).splitlines()]
    kept = [line for line in dict.fromkeys(lines) if line and not _NOISE.match(line)]
    return re.sub(r":; ", ": ", "; ".join(kept))
