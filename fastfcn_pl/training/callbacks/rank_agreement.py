"""Check that all ranks run the same job."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import lightning as L
import torch.distributed as dist

from fastfcn_pl.core.differences import differences
from fastfcn_pl.core.redaction import without_secrets
from fastfcn_pl.core.types import UserError, listed


class RankAgreement(L.Callback):
    """Raise UserError if the number of ranks is not the configured one, or if their configurations differ."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = json.loads(json.dumps(config, sort_keys=True, default=str))
        self.config.get("logger", {}).get("wandb", {}).pop("id", None)  # random on each rank, used on rank 0 only

    @property
    def hash(self) -> str:
        """Hash of the configuration."""
        return hashlib.sha256(json.dumps(self.config).encode()).hexdigest()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            return
        if dist.get_world_size() != trainer.world_size:
            raise UserError(
                f"trainer.devices={trainer.num_devices} on trainer.num_nodes={trainer.num_nodes} makes "
                f"{trainer.world_size} ranks, but {dist.get_world_size()} were started: make the numbers agree"
            )
        hashes: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(hashes, self.hash)
        other = next((rank for rank, config_hash in enumerate(hashes) if config_hash != hashes[0]), None)
        if other is None:
            return
        configs: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(configs, self.config)
        pair = without_secrets([configs[0], configs[other]])
        rows = [f"{key}: {a} and {b}" for key, a, b in differences(*pair)]
        raise UserError(
            f"ranks 0 and {other} are configured differently ({listed(rows, most=3)}): start every rank with the same "
            "command and the same hydra.run.dir"
        )
