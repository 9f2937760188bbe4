"""All ranks run one and the same job."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import lightning as L
import torch.distributed as dist

from fastfcn_pl.core.redaction import without_secrets
from fastfcn_pl.core.types import UserError, differences, listed


class Agreement(L.Callback):
    """Stops a job whose ranks are not as many as configured, or are not all configured by `config` of rank 0."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = json.loads(json.dumps(config, sort_keys=True, default=str))
        self.config.get("logger", {}).get("wandb", {}).pop("id", None)  # each rank makes one, and rank 0 uses its own

    @property
    def hash(self) -> str:
        """Equal for equal configurations."""
        return hashlib.sha256(json.dumps(self.config).encode()).hexdigest()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            return
        if dist.get_world_size() != trainer.world_size:
            raise UserError(
                f"trainer.devices={trainer.num_devices} on trainer.num_nodes={trainer.num_nodes} makes "
                f"{trainer.world_size} ranks, but {dist.get_world_size()} have been started"
            )
        hashes: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(hashes, self.hash)
        other = next((rank for rank, found in enumerate(hashes) if found != hashes[0]), None)
        if other is None:
            return
        configs: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(configs, self.config)
        found = [f"{key}: {a} and {b}" for key, a, b in differences(*without_secrets([configs[0], configs[other]]))]
        raise UserError(
            f"ranks 0 and {other} are configured differently ({listed(found, most=3)}): start each with the same "
            "command, and hydra.run.dir"
        )
