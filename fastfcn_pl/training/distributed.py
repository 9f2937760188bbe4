"""Ranks that torchrun or srun starts, instead of Lightning.

Rank 0 composes the job and the other ranks run the same one. On their own they would write to folders of other times,
and repeat each error. torch is imported inside functions, since every command imports this module when it starts.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, cached_property
from typing import TYPE_CHECKING

from fastfcn_pl.core.types import UserError

if TYPE_CHECKING:
    from torch.distributed import Store

WAIT = timedelta(minutes=5)
"""Time that ranks wait for each other to start."""
WAIT_AT_END = timedelta(seconds=20)
"""Time that rank 0 waits for the others when an error ends it."""
GRACE = 30.0
"""Seconds that a failed rank gives rank 0 to end, if rank 0 has failed, too."""
_ALONE = 4.0
"""Seconds after which a failed rank takes the error for its own: rank 0 still waits for it inside a step."""
FAILED, SPOKE = "fastfcn_pl/rank 0 failed", "fastfcn_pl/another rank spoke"
"""Notes: an error ends rank 0, which reports it; another rank has reported an error."""
_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe \[|remote process exited|NCCL.*remote", re.IGNORECASE
)
_OF_SRUN = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
_PARENT = os.getppid()


@dataclass(frozen=True)
class Started:
    """This process as one of `size` ranks that the program `by` has started."""

    rank: int
    size: int
    by: str
    command: list[str] = field(default_factory=lambda: sys.argv[1:], compare=False)

    @classmethod
    @cache
    def this(cls) -> Started | None:
        """Return the rank that the environment gives this process; None if it starts its ranks itself, or has none."""
        env = os.environ
        if {"TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"} <= env.keys():
            return cls(int(env["RANK"]), int(env["WORLD_SIZE"]), "torchrun")
        if {"SLURM_PROCID", "SLURM_NTASKS"} <= env.keys() and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
            return cls(int(env["SLURM_PROCID"]), int(env["SLURM_NTASKS"]), "srun")
        return None

    @cached_property
    def _store(self) -> Store:
        return self._meet(WAIT)

    def _meet(self, timeout: timedelta) -> Store:
        """Return the store that all ranks share, after they have met."""
        import torch.distributed as dist

        if self.by == "srun":  # where torchrun says by itself how rank 0 is reached
            from lightning.fabric.plugins.environments import SLURMEnvironment

            try:
                environment = SLURMEnvironment()
            except RuntimeError as error:
                raise UserError(str(error)) from error
            os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        store, _, _ = next(dist.rendezvous("env://", self.rank, self.size, timeout=timeout))
        return dist.PrefixStore(f"fastfcn_pl/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)

    def share(self, job: str) -> None:
        """Send rank 0's `job` to the others; raises UserError if one does not answer or has another command."""
        from torch.distributed import DistError

        if self.size == 1:
            return
        try:
            self._store.set("job", json.dumps([self.command, job]))
            answers = [self._store.get(f"answer of rank {rank}").decode() for rank in range(1, self.size)]
        except DistError as error:
            raise UserError(
                f"{self.by} is to start {self.size} ranks, and not all were there within {WAIT}: start the same "
                "command on each machine, on a cluster by srun"
            ) from error
        if wrong := [answer for answer in answers if answer]:
            raise UserError(wrong[0])
        self._store.set("go", "yes")

    def receive(self) -> str:
        """Return the job of rank 0 to another rank; exits with the code of rank 0 if that ends without a job."""
        from torch.distributed import DistError

        try:
            command, job = json.loads(self._store.get("job"))
            answer = ""
            if self.command != command:
                here = " ".join(word for word in self.command if word not in command) or "nothing"
                there = " ".join(word for word in command if word not in self.command) or "nothing"
                answer = f"rank {self.rank} has {here} where rank 0 has {there}: start the same command on each machine"
            self._store.set(f"answer of rank {self.rank}", answer)
            if (go := self._store.get("go").decode()) == "yes":
                return str(job)
        except DistError:  # rank 0 is gone, and has said why
            go = "1"
        sys.exit(int(go))

    def end(self, exit_code: int) -> None:
        """Announce, as rank 0, that it ends, so that the others do not wait for a job that will not come."""
        if self.size == 1:
            return
        from torch.distributed import DistError

        with suppress(DistError):
            store = self._store if "_store" in self.__dict__ else self._meet(WAIT_AT_END)
            for key, value in (("job", "[[], null]"), ("go", str(exit_code)), ("ended", "yes")):
                if not store.check([key]):
                    store.set(key, value)

    def rank_0_ended(self) -> bool:
        """Tell whether rank 0 has ended or can no longer be reached."""
        from torch.distributed import DistError

        try:
            return self._store.check(["ended"])
        except DistError:
            return True


def is_rank_0() -> bool:
    """Tell whether this process is the one that prints and writes, however it was started."""
    started = Started.this()
    return (
        started.rank == 0 if started else os.environ.get("LOCAL_RANK", "0") == os.environ.get("NODE_RANK", "0") == "0"
    )


def rank_0_ends() -> bool:
    """Wait for rank 0, and tell whether it ended: it has then reported the error.

    Lightning kills rank 0, the parent of those it starts, where one ends before it, even while it closes its loggers.
    """
    started = Started.this()
    ended = started.rank_0_ended if started else lambda: os.getppid() != _PARENT
    begun = time.monotonic()
    while not ended() and time.monotonic() - begun < (GRACE if noted(FAILED, unknown=True) else min(GRACE, _ALONE)):
        time.sleep(0.1)
    return ended()


def note(what: str) -> None:
    """Tell the other ranks that this one `FAILED`, or `SPOKE`."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        with suppress(distributed.DistError):
            distributed.distributed_c10d._get_default_store().set(what, "yes")


def noted(what: str, unknown: bool) -> bool:
    """Tell whether a rank has left that note; `unknown` if the store cannot be reached."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return unknown
    try:
        return bool(distributed.distributed_c10d._get_default_store().check([what]))
    except distributed.DistError:
        return unknown


def loss_of_rank(error: BaseException) -> str | None:
    """Return the line for an error that means another rank has ended inside a step; None for other errors."""
    if isinstance(error, RuntimeError) and _LOST.search(str(error)):
        return (
            "another rank has ended: its own error is above; without one it was killed, as happens if memory runs out"
        )
    return None


def without_srun(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a job that starts its own ranks, even if srun has started this process."""
    return {name: value for name, value in environment.items() if name not in _OF_SRUN}
