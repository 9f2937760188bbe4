"""Running a Hydra job so that a user's mistake ends in one line and exit code 1."""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fastfcn_pl import config
from fastfcn_pl.contracts import UserError, suggest
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
    # Hydra then raises what went wrong while composing, instead of printing it in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    run = hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name=config_name)(_reporting(job))
    try:
        run()
    except Exception as error:
        _end(error)


def _reporting(job: Job) -> Job:
    """End a single job's mistakes here, before Hydra reports them; in a sweep, say them and go on.

    A job that a mistake ended before it made anything leaves no folder.
    """

    @functools.wraps(job)
    def run(cfg: DictConfig) -> Any:
        hydra_config = HydraConfig.get()
        folders = _new_folders(cfg)
        try:
            return job(cfg)
        except Exception as error:
            if hydra_config.mode is RunMode.RUN:
                if one_line(error) is not None:
                    _remove(folders)
                _end(error)
            if (line := one_line(error)) and _is_rank_0():
                _say(f"job {hydra_config.job.num} ({hydra_config.job.override_dirname}): {line}")
            raise

    return run


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
    if line is None or any(re.fullmatch(r"\+*debug=(true|1)", argument.lower()) for argument in sys.argv[1:]):
        raise error
    _say(line)
    sys.exit(1)


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
    if folder is not None:
        path = Path(folder, ".hydra", "hydra.yaml")
        chosen = OmegaConf.load(path).hydra.runtime.choices if path.is_file() else {}
    else:
        chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
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
