"""Logger for Trackio: a local database, or a Hugging Face Space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.logger import _convert_params
from lightning.pytorch.utilities import rank_zero_only

from fastfcn_pl.core.redaction import redacted, without_secrets
from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.media_logger import MediaLogger


class TrackioRun(MediaLogger):
    """Run of a Trackio project that stores `config` without its secrets.

    `space_id` names a Hugging Face Space; without one, Trackio's local database is used (its folder is TRACKIO_DIR).
    Raises UserError if Trackio is not installed.
    """

    title = "Trackio"

    def __init__(
        self,
        config: dict[str, Any],
        *,
        project: str,
        name: str | None,
        id: str | None,
        group: str | None,
        space_id: str | None,
    ) -> None:
        super().__init__()
        try:
            import trackio
        except ImportError as error:
            raise UserError("logger=trackio needs Trackio: pip install 'fastfcn-pl[trackio]'") from error
        self._trackio, self._project, self._run = trackio, project, None
        self._name = without_secrets(name) or str(id)
        self._options = {"group": without_secrets(group), "config": redacted(config), "space_id": space_id}

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Trackio's run."""
        if self._run is None:
            off = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
            self._run = self._trackio.init(self._project, self._name, resume="allow", **self._options, **off)
        return self._run

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str:
        return self._name

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.experiment.config.update(_convert_params(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None

    def log_picture(self, key: str, pixels: np.ndarray, step: int) -> None:
        self.experiment.log({key: self._trackio.Image(pixels)}, step=step)

    def log_rows(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        import pandas  # comes with Trackio

        self.experiment.log({key: self._trackio.Table(dataframe=pandas.DataFrame(rows, columns=columns))}, step=step)

    def log_facts(self, values: Mapping[str, Any], step: int) -> None:
        self.experiment.log(dict(values), step=step)

    def log_file(self, path: Path, name: str) -> None:
        self.experiment.log_artifact(path, name=name.replace("/", "-"), type="model", aliases=["best"])

    @property
    def view(self) -> str:
        return self.experiment.url or f"trackio show --project {self._project}"
