"""A composed job as text, so that other processes run exactly it: jobs of a sweep, and ranks above 0.

Lightning's ranks would compose the command line again. With `-m` each would run the whole sweep, on suggestions of its
own from the sweeper. Jobs of a sweep in one process would inherit each other's world size.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config.stored_config import record_env_reads, resolve_config

FLAG = "--job"
_VARIABLE = "FASTFCN_PL_JOB"


@dataclass(frozen=True)
class FrozenJob:
    """A job of the entry point `module`: all of its configuration, and Hydra's, secrets included.

    Processes pass it on in memory; it is never written to disk.
    """

    module: str
    text: str
    folder: Path
    current: ClassVar[FrozenJob | None] = None
    """The job of this process."""

    @classmethod
    def of(cls, module: str, cfg: DictConfig) -> FrozenJob:
        """Freeze `cfg`, with its interpolations resolved, and Hydra's configuration of the running job.

        Interpolations that read the environment stay, with the values read here: other machines may not have them.
        """
        hydra = HydraConfig.get()
        with record_env_reads() as reads:
            job = OmegaConf.create(resolve_config(cfg))
        content = {
            "job": OmegaConf.to_yaml(job),
            "hydra": OmegaConf.to_yaml(hydra),
            "environment": {name: value for name, value in reads if name in os.environ},
        }
        return cls(module, json.dumps(content), Path(hydra.runtime.output_dir))

    def command(self) -> list[str]:
        """Return the command of a process that runs the job, to be started with `environment`."""
        return [sys.executable, "-m", self.module, FLAG, str(self.folder)]

    @property
    def environment(self) -> dict[str, str]:
        """Variables that the process needs in addition to this one's environment, which other users cannot read."""
        return {_VARIABLE: base64.b64encode(zlib.compress(self.text.encode())).decode()}

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """Let processes that start inside this context find the job in their environment."""
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.pop(_VARIABLE, None)


def received() -> str:
    """Return the text of the job that this process was started to run."""
    return zlib.decompress(base64.b64decode(os.environ.pop(_VARIABLE))).decode()


def thaw(text: str) -> DictConfig:
    """Return the configuration of a frozen job, and set its Hydra configuration in this process."""
    content = json.loads(text)
    for name, value in content["environment"].items():
        os.environ.setdefault(name, value)
    job = OmegaConf.create(content["job"])
    assert isinstance(job, DictConfig)
    schema = OmegaConf.structured(HydraConf)
    OmegaConf.set_struct(schema, False)  # Hydra's own options add keys to it
    hydra = OmegaConf.merge(schema, OmegaConf.create(content["hydra"]))
    root = OmegaConf.to_container(job, resolve=False)
    HydraConfig.instance().set_config(OmegaConf.create({**root, "hydra": hydra}))  # type: ignore[dict-item]
    configure_log(HydraConfig.get().job_logging, HydraConfig.get().verbose)  # type: ignore[arg-type]
    OmegaConf.set_struct(job, True)
    return job
