"""Ranks started by torchrun or srun: all run the job that rank 0 composed, or none does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from omegaconf import DictConfig
from torch.distributed import HashStore

from fastfcn_pl.config import build
from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.distributed import Started
from tests.conftest import TINY
from tests.support.processes import free_port, start

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "8"}
SRUN = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in (*TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    Started.this.cache_clear()
    yield monkeypatch
    Started.this.cache_clear()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (TORCHRUN, Started(3, 8, "torchrun")),
        (SRUN, Started(2, 4, "srun")),
        (SRUN | TORCHRUN, Started(3, 8, "torchrun")),
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, None),
        ({"RANK": "3", "WORLD_SIZE": "8"}, None),
    ],
    ids=["alone", "torchrun", "srun", "torchrun on a cluster", "a shell on a cluster", "not torchrun's"],
)
def test_what_started_a_process(
    variables: dict[str, str], expected: Started | None, environment: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert Started.this() == expected


def test_the_started_world_size_is_the_configured_one(
    environment: pytest.MonkeyPatch, make_config: Callable[..., DictConfig]
) -> None:
    for name, value in (TORCHRUN | {"WORLD_SIZE": "2"}).items():
        environment.setenv(name, value)
    with pytest.raises(UserError, match=r"trainer.devices=1 on trainer.num_nodes=1 makes 1 ranks, but torchrun has st"):
        build.trainer(make_config(*TINY))


def _meet(
    monkeypatch: pytest.MonkeyPatch, commands: list[list[str]], job: str | None
) -> tuple[list[str | int | None], str]:
    """Let rank 0 share `job`, or end without one, with ranks that have `commands`.

    Return the job or the exit code of each other rank, and what rank 0 says is wrong.
    """
    store = HashStore()
    monkeypatch.setattr(Started, "_meet", lambda self, timeout: store)
    started = [Started(rank, len(commands), "torchrun", command) for rank, command in enumerate(commands)]

    def receive(rank: Started) -> str | int | None:
        try:
            return rank.receive()
        except SystemExit as end:
            return end.code

    said = ""
    with ThreadPoolExecutor() as pool:
        received = [pool.submit(receive, other) for other in started[1:]]
        try:
            if job is not None:
                started[0].share(job)
        except UserError as mistake:
            said = str(mistake)
        finally:
            assert not started[1].rank_0_ended()
            started[0].end(7)
        assert started[1].rank_0_ended()
        return [future.result() for future in received], said


@pytest.mark.parametrize(
    ("seeds", "job", "received"),
    [
        ("111", "the job", ["the job", "the job"]),
        ("111", None, [7, 7]),
        ("112", "the job", [7, 7]),
    ],
    ids=["a job", "none", "another command"],
)
def test_all_ranks_get_the_job_of_rank_0_or_none(
    seeds: str, job: str | None, received: list[str | int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, said = _meet(monkeypatch, [[f"seed={seed}", "data=shapes"] for seed in seeds], job)
    assert found == received
    assert ("rank 2 has seed=2 where rank 0 has seed=1: start the same command" in said) == (seeds == "112")


SMALL = [*TINY[:-1], "data.train_images=8", "data.val_images=3", "data.size=64", "data.num_workers=0"]
SMALL += ["data.batch_size=2", "trainer.max_epochs=1", "~callbacks.cost", "~callbacks.progress"]


def _agents(
    folder: Path, addresses: tuple[str, str], commands: list[list[str]], prefixes: list[list[str]], **env: str
) -> list[tuple[int, str, str]]:
    """Run torchrun's agents of two machines; return exit code, output and errors of each."""
    shared = ["--nnodes=2", "--nproc-per-node=1", f"--master-addr={addresses[0]}", f"--master-port={free_port()}"]
    agents = [
        subprocess.Popen(
            [*prefix, sys.executable, "-m", "torch.distributed.run", *shared, f"--node-rank={node}",
             f"--local-addr={address}", "-m", "fastfcn_pl.train", *command],
            cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", **env}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for node, (address, command, prefix) in enumerate(zip(addresses, commands, prefixes, strict=True))
    ]  # fmt: skip
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda agent: agent.communicate(timeout=240), agents))
    return [(agent.returncode, *texts) for agent, texts in zip(agents, said, strict=True)]


def _assert_one_run(folder: Path, done: list[tuple[int, str, str]]) -> None:
    assert [code for code, _, _ in done] == [0, 0], done
    (run,) = (folder / "runs" / "train").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert (results["world_size"], results["steps"], results["images"]) == (2, 2, 3)
    assert len(list(run.glob("wandb/offline-run-*"))) == 1
    assert done[0][1].count("protocol native: mIoU") == done[0][1].count("W&B run:") - 1 == 1
    assert done[1][1] == "", "rank 0 alone prints"


@pytest.mark.slow
def test_two_machines_make_one_run(tmp_path: Path) -> None:
    """Each of the two agents of torchrun has its own address."""
    command = [*SMALL, "logger.wandb.mode=offline", "trainer.num_nodes=2"]
    done = _agents(tmp_path, ("127.0.0.2", "127.0.0.3"), [command, command], [[], []])
    _assert_one_run(tmp_path, done)


@pytest.mark.exhaustive
def test_two_machines_with_two_commands_make_none(tmp_path: Path) -> None:
    command = [*SMALL, "logger=none", "trainer.num_nodes=2"]
    done = _agents(tmp_path, ("127.0.0.2", "127.0.0.3"), [command, [*command, "seed=2"]], [[], []])
    assert all(code != 0 for code, _, _ in done)
    said = [line for _, _, errors in done for line in errors.splitlines() if line.startswith("error: ")]
    assert said == ["error: rank 1 has seed=2 where rank 0 has nothing: start the same command on each machine"]
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def networks() -> Iterator[list[str]]:
    """Two network namespaces, joined by a cable, with the addresses 10.11.12.1 and 10.11.12.2."""
    names = [f"fastfcn{os.getpid()}{end}" for end in "ab"]
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making network namespaces needs root and iproute2")
    made = subprocess.run(
        f"ip netns add {names[0]} && ip netns add {names[1]} && "
        f"ip -n {names[0]} link add cable type veth peer name cable netns {names[1]} && "
        + " && ".join(
            f"ip -n {name} addr add 10.11.12.{i}/24 dev cable && ip -n {name} link set cable up && "
            f"ip -n {name} link set lo up"
            for i, name in enumerate(names, start=1)
        ),
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        if made.returncode:
            pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.exhaustive
def test_two_networks_make_one_run(networks: list[str], tmp_path: Path) -> None:
    command = [*SMALL, "logger.wandb.mode=offline", "trainer.num_nodes=2"]
    inside = [["ip", "netns", "exec", name] for name in networks]
    done = _agents(tmp_path, ("10.11.12.1", "10.11.12.2"), [command] * 2, inside, GLOO_SOCKET_IFNAME="cable")
    _assert_one_run(tmp_path, done)


@pytest.mark.slow
def test_ranks_started_by_hand_have_one_configuration(tmp_path: Path) -> None:
    """Each machine starts the command with NODE_RANK and composes its own configuration, as Lightning documents."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = ["fastfcn_pl.train", *SMALL, "logger=none", "trainer.num_nodes=2", "hydra.run.dir=run"]
    first = start(tmp_path, *command, **where, NODE_RANK="0")
    second = start(tmp_path, *command, "optimizer.lr=0.5", **where, NODE_RANK="1")
    said = first.communicate(timeout=120)[1]
    second.kill()
    assert first.returncode == 1
    assert said.splitlines()[-1] == (
        "error: ranks 0 and 1 are configured differently (optimizer.lr: 0.01 and 0.5): start every rank with the same "
        "command and the same hydra.run.dir"
    )
