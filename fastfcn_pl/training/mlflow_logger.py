"""Logger for MLflow 3: a tracking server, or a database on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lightning.fabric.utilities.logger import _convert_params, _flatten_dict
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from fastfcn_pl.core.redaction import redacted, without_secrets
from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.media_logger import MediaLogger

CONFIG = "resolved_config.yaml"
_ID = "fastfcn_pl.id"
_MAX_TEXT = 500
"""Characters of a tag that every MLflow server takes."""


class MLflowRun(MLFlowLogger, MediaLogger):
    """Run of an MLflow experiment, with the whole `config` as a file, without its secrets.

    Without a `tracking_uri`, MLFLOW_TRACKING_URI counts, else a database in `folder`, which also holds its files.
    Raises UserError if MLflow is not installed.
    """

    title = "MLflow"

    def __init__(
        self,
        config: dict[str, Any],
        *,
        folder: str,
        experiment: str,
        tracking_uri: str | None,
        name: str | None,
        id: str | None,
        group: str | None,
        choices: Mapping[str, str],
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reports its use to a server
        database = Path(folder, "mlflow.db")
        local = f"sqlite:///{database.absolute()}"  # MLflow keeps a connection by this text, whatever the folder
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or local
        if uri == local:
            Path(folder).mkdir(parents=True, exist_ok=True)
        tags = {_ID: id, "group": group, **choices}
        try:
            super().__init__(
                experiment_name=experiment,
                run_name=without_secrets(name),
                tracking_uri=uri,
                tags={
                    _name(key): str(value)[:_MAX_TEXT]
                    for key, value in without_secrets(tags).items()
                    if value is not None
                },
                artifact_location=str(Path(folder, "mlflow").absolute()) if uri == local else None,
            )
        except ModuleNotFoundError as error:
            raise UserError("logger=mlflow needs MLflow: pip install 'fastfcn-pl[mlflow]'") from error
        self.config, self.own_id = redacted(config), id
        self.uri = f"sqlite:///{database}" if uri == local else uri

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log the parameters that the run does not have yet: MLflow refuses to change one."""
        known = self.experiment.get_run(self.run_id).data.params
        flat = {_name(key): value for key, value in _flatten_dict(_convert_params(params)).items()}
        super().log_hyperparams({key: value for key, value in flat.items() if key not in known})
        if not known:
            self.experiment.log_text(self.run_id, yaml.safe_dump(self.config, sort_keys=False), CONFIG)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({_name(key): value for key, value in metrics.items()}, step)

    @property
    def experiment(self) -> Any:
        """MLflow's client, with the run that has this `id`, or a new one."""
        if not self._initialized and self._run_id is None:
            self._run_id = self._find_run()
        return super().experiment

    def _find_run(self) -> str | None:
        experiment = self._mlflow_client.get_experiment_by_name(self._experiment_name)
        if experiment is None:
            return None
        runs = self._mlflow_client.search_runs([experiment.experiment_id], f"tags.`{_ID}` = '{self.own_id}'")
        return runs[0].info.run_id if runs else None

    def log_picture(self, key: str, pixels: np.ndarray, step: int) -> None:
        self.experiment.log_image(self.run_id, pixels, key=key, step=step)

    def log_rows(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        table = {"step": [step] * len(rows), **dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))}
        self.experiment.log_table(self.run_id, table, f"{key}.json")

    def log_facts(self, values: Mapping[str, Any], step: int) -> None:
        for name, value in values.items():
            key = _name(name)
            if isinstance(value, (int, float)):
                self.experiment.log_metric(self.run_id, key, value, step=step)
            else:
                self.experiment.set_tag(self.run_id, key, str(value)[:_MAX_TEXT])

    def log_file(self, path: Path, name: str) -> None:
        self.experiment.log_artifact(self.run_id, str(path), Path(name).parent.as_posix().strip("."))

    @property
    def view(self) -> str:
        if self.uri.startswith("http"):
            return f"{self.uri}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"mlflow ui --backend-store-uri {self.uri}"


def _name(key: str) -> str:
    """Return `key` with the code points of characters that MLflow refuses, so that names stay distinct."""
    return re.sub(r"[^a-zA-Z0-9_/. -]", lambda match: f"_{ord(match[0]):x}_", key)
