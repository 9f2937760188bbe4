"""A composed job as text, so that other processes run the very same: jobs of a sweep, and ranks above 0.

Lightning's ranks would compose the command line again, and with `-m` run the whole sweep, each with what a sweeper
happens to suggest to it. A sweep's jobs in one process would inherit each other's world size.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.staging import staged

FLAG = "--job"


@dataclass(frozen=True)
class FrozenJob:
    """What the entry point `module` was asked to do: all of its configuration, and Hydra's, as YAML."""

    module: str
    text: str
    folder: Path
    current: ClassVar[FrozenJob | None] = None
    """The job of this process."""

    @classmethod
    def of(cls, module: str, cfg: DictConfig) -> FrozenJob:
        """Freeze `cfg`, with its interpolations resolved, and Hydra's configuration of the running job."""
        hydra = HydraConfig.get()
        content = {
            "job": OmegaConf.to_container(cfg, resolve=True),
            "hydra": OmegaConf.create(OmegaConf.to_yaml(hydra)),
        }
        return cls(module, OmegaConf.to_yaml(OmegaConf.create(content)), Path(hydra.runtime.output_dir))

    def command(self) -> list[str]:
        """Write the job into its folder and return the command that runs it."""
        path = self.folder / ".hydra" / "job.yaml"
        with staged(path) as hidden:
            hidden.write_text(self.text)
        return [sys.executable, "-m", self.module, FLAG, str(path)]


def thaw(text: str) -> DictConfig:
    """Return the configuration of a job that was frozen, and make Hydra's the one of this process."""
    content = OmegaConf.create(text)
    assert isinstance(content, DictConfig)
    schema = OmegaConf.structured(HydraConf)
    OmegaConf.set_struct(schema, False)  # Hydra's own options add keys to it
    hydra = OmegaConf.merge(schema, content.hydra)
    HydraConfig.instance().set_config(OmegaConf.create({**content.job, "hydra": hydra}))
    configure_log(HydraConfig.get().job_logging, HydraConfig.get().verbose)  # type: ignore[arg-type]
    cfg: DictConfig = content.job
    OmegaConf.set_struct(cfg, True)
    return cfg
