"""Running a Hydra job so that a user's mistake ends in one line and exit code 1."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fastfcn_pl import config
from fastfcn_pl.contracts import UserError, suggest

Job = Callable[[DictConfig], Any]
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
    """End a single job's mistakes here, before Hydra reports them; in a sweep, say them and go on."""

    @functools.wraps(job)
    def run(cfg: DictConfig) -> Any:
        try:
            return job(cfg)
        except Exception as error:
            hydra_config = HydraConfig.get()
            if hydra_config.mode is RunMode.RUN:
                _end(error)
            if line := one_line(error):
                _say(f"job {hydra_config.job.num} ({hydra_config.job.override_dirname}): {line}")
            raise

    return run


def _end(error: Exception) -> NoReturn:
    """Print the error in one line and exit, or raise it again where it is not one that the user can mend."""
    line = one_line(error)
    if line is None or any(re.fullmatch(r"\+*debug=(true|1)", argument.lower()) for argument in sys.argv[1:]):
        raise error
    _say(line)
    sys.exit(1)


def _say(line: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # every rank makes the same mistake
        print(f"error: {line}", file=sys.stderr)


def choices() -> dict[str, str]:
    """Return the option chosen in each config group of this job, such as `model/neck: jpu`; empty outside of one."""
    if not HydraConfig.initialized():
        return {}
    return {k: v for k, v in HydraConfig.get().runtime.choices.items() if v is not None and not k.startswith("hydra/")}


def one_line(error: BaseException) -> str | None:
    """Return the message for an error that the user can mend, or None where it is not one."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    for link in chain:
        if isinstance(link, UserError):
            # A worker process hands its error over as text, with a traceback before the message.
            return " ".join(str(link).rsplit("UserError: ", 1)[-1].splitlines()).strip()
    if type(error).__name__ == "MisconfigurationException":  # Lightning's word for a user's mistake
        return " ".join(str(error).split())
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        cause = f"{type(chain[-1]).__name__}: {' '.join(str(chain[-1]).split())}"
        return f"{key[1] if key else 'the config'} cannot be built: {cause} (+debug=true shows where)"
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
