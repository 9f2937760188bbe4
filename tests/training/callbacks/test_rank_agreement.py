"""Ranks with different configurations are rejected."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from fastfcn_pl.core.differences import differences
from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.callbacks.rank_agreement import RankAgreement


def test_hashes_are_of_what_is_configured() -> None:
    one = {"seed": 1, "logger": {"wandb": {"id": "a", "project": "x"}}}
    assert RankAgreement(one).hash == RankAgreement({"logger": {"wandb": {"project": "x", "id": "b"}}, "seed": 1}).hash
    assert RankAgreement(one).hash != RankAgreement({**one, "seed": 2}).hash
    assert one["logger"]["wandb"]["id"] == "a", "what it is given stays"


def test_differences_are_named() -> None:
    found = differences({"a": {"b": 1, "c": [1]}, "d": 0}, {"a": {"b": 2, "c": [1]}, "e": {"f": 0}})
    assert found == [("a.b", 1, 2), ("d", 0, None), ("e", None, {"f": 0})]


def _rank(rank: int, configs: list[dict[str, Any]], world_size: int, store: Path, said: Any) -> None:
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=len(configs))
    trainer: Any = SimpleNamespace(world_size=world_size, num_devices=world_size, num_nodes=1)
    try:
        RankAgreement(configs[rank]).setup(trainer, None, "fit")  # type: ignore[arg-type]
        said.put("")
    except UserError as error:
        said.put(str(error))


@pytest.mark.parametrize(
    ("second", "world_size", "line"),
    [
        ({"seed": 1, "optimizer": {"lr": 0.1}}, 2, ""),
        ({"seed": 1, "optimizer": {"lr": 0.2}}, 2, "ranks 0 and 1 are configured differently (optimizer.lr: 0.1 and "),
        ({"seed": 1, "optimizer": {"lr": 0.1}}, 4, "makes 4 ranks, but 2 were started"),
    ],
    ids=["equal", "another configuration", "another world size"],
)
def test_every_rank_stops_where_one_differs(second: dict[str, Any], world_size: int, line: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    configs = [{"seed": 1, "optimizer": {"lr": 0.1}}, second]
    ranks = [
        context.Process(target=_rank, args=(rank, configs, world_size, tmp_path / "store", said)) for rank in (0, 1)
    ]
    for rank in ranks:
        rank.start()
    found = [said.get(timeout=60) for _ in ranks]
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    assert found[0] == found[1]
    assert line in found[0]
    assert bool(line) == bool(found[0])
